"""Options that several commands share: resuming, marking, language models."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from syncos_jax.errors import InputError

if TYPE_CHECKING:
    from syncos_jax.media.marking import Marking

Resume = Annotated[
    bool,
    typer.Option(
        "--resume/--no-resume",
        help="Resume an interrupted run of the same scenario and settings from "
        ".NAME.run next to the video; --no-resume deletes that state.",
    ),
]
CheckpointEvery = Annotated[
    str,
    typer.Option(
        "--checkpoint-every",
        metavar="TIME",
        help="Save the run's state every TIME: seconds such as 30 (less often if "
        "saving would take more than 2 % of the time), or network calls "
        "such as 100rows.",
    ),
]
Watermark = Annotated[
    bool | None,
    typer.Option(
        "--watermark/--no-watermark",
        help="Hide the run's id in the frames, imperceptibly; syncos verify reads it. Default: "
        "$SYNCOS_WATERMARK, else off.",
        show_default=False,
    ),
]
Certificate = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.pem",
        help="Sign the video (Content Credentials) with this certificate and --key. Default: "
        "$SYNCOS_CERTIFICATE, else unsigned; see syncos credentials.",
        show_default=False,
    ),
]
SigningKey = Annotated[
    Path | None,
    typer.Option(
        "--key",
        metavar="FILE.pem",
        help="Private key of --certificate. Default: $SYNCOS_SIGNING_KEY.",
        show_default=False,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors.")]
LanguageModel = Annotated[
    str | None,
    typer.Option(
        "--llm",
        metavar="URL",
        help="OpenAI-compatible URL, such as http://127.0.0.1:8000/v1, of a "
        "language model that splits stories; its key, if needed, in "
        "$SYNCOS_LLM_KEY. Default: rules, offline.",
        show_default=False,
    ),
]
LanguageModelName = Annotated[
    str | None,
    typer.Option(
        "--llm-model", metavar="NAME", help="Name of the model at that URL.", show_default=False
    ),
]


def server_modules() -> None:
    """Raises InputError if a package that the server needs is missing."""
    try:
        import fastapi  # noqa: F401
        import httptools  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"the server needs {error.name}", remedy='pip install "syncos-jax[studio]"'
        ) from error


def read_marking(watermark: bool | None, certificate: Path | None, key: Path | None) -> Marking:
    """How videos are marked, from the options and, where these are left out, the environment.

    Raises InputError for an identity that cannot sign.
    """
    from syncos_jax.media.certificates import TIME_STAMP_VARIABLE, identity_from_files
    from syncos_jax.media.marking import Marking

    if certificate is None and key is None:
        marking = Marking.from_environment()
    elif certificate is None or key is None:
        raise InputError("signing needs both --certificate and --key")
    else:
        identity = identity_from_files(certificate, key, os.environ.get(TIME_STAMP_VARIABLE))
        marking = Marking(identity=identity)
    return marking if watermark is None else dataclasses.replace(marking, watermark=watermark)
