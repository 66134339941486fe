"""What several commands share: options of runs that go on after they were killed, of language
models, and the look for what a server needs."""

from __future__ import annotations

from typing import Annotated

import typer

from syncos_jax.errors import InputError

Resume = Annotated[
    bool,
    typer.Option(
        "--resume/--no-resume",
        help="Go on with what a killed run of the same scenario and settings has left in "
        ".NAME.run beside the video; otherwise delete that.",
    ),
]
CheckpointEvery = Annotated[
    str,
    typer.Option(
        "--checkpoint-every",
        metavar="TIME",
        help="How often the state of the run is saved: seconds such as 30 (less often where "
        "saving would take more than 2 % of the time), or rows such as 100rows.",
    ),
]
LanguageModel = Annotated[
    str | None,
    typer.Option(
        "--llm",
        metavar="URL",
        help="An OpenAI-compatible address, such as http://127.0.0.1:8000/v1, whose model splits "
        "stories; its key, if it wants one, in $SYNCOS_LLM_KEY. Default: rules, offline.",
        show_default=False,
    ),
]
LanguageModelName = Annotated[
    str | None,
    typer.Option(
        "--llm-model", metavar="NAME", help="The model at that address.", show_default=False
    ),
]


def server_modules() -> None:
    """Says how to install what the server needs, where it is missing."""
    try:
        import fastapi  # noqa: F401
        import httptools  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"{error.name} is not installed, which the server needs; "
            'install it with: pip install "syncos-jax[studio]"'
        ) from error
