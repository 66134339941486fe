"""The options of commands whose runs go on after they were killed."""

from __future__ import annotations

from typing import Annotated

import typer

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
