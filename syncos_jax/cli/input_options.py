"""Options for what is given of a video: pictures, clips, a soundtrack."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

Image = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Begin with this picture. In a scenario file: image, also on an event.",
        show_default=False,
    ),
]
EndImage = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="End with this picture.", show_default=False),
]
Extend = Annotated[
    Path | None,
    typer.Option(
        metavar="VIDEO",
        help="Continue this video: its frames, then the events. The model sees its last frames "
        "(half a window at most).",
        show_default=False,
    ),
]
Join = Annotated[
    bool | None,
    typer.Option(
        "--join/--no-join",
        help="With --extend: write the extended video with what is new (default), or only what is "
        "new.",
        show_default=False,
    ),
]
Redo = Annotated[
    str | None,
    typer.Option(
        metavar="VIDEO:N,N",
        help="Generate these events of this video again, from 1; all other frames stay.",
        show_default=False,
    ),
]
Reference = Annotated[
    bool | None,
    typer.Option(
        "--reference/--no-reference",
        help="Let windows that hold no given frame see the last one before them, so that the "
        "subject stays the same. Default: as the model was trained.",
        show_default=False,
    ),
]
Fit = Annotated[
    str | None,
    typer.Option(
        metavar="cover|contain",
        help="Fit pictures of another shape by cropping (cover, the default) or with bars.",
        show_default=False,
    ),
]
Audio = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Soundtrack, from any file with sound. Cut at the end of the video; after a shorter "
        "one comes silence. Without it, --extend and --redo keep the sound of their video.",
        show_default=False,
    ),
]
LoopAudio = Annotated[
    bool | None,
    typer.Option(
        "--loop-audio",
        help="Repeat a soundtrack that is shorter than the video.",
        show_default=False,
    ),
]


def read(given: Mapping[str, Path | str | bool | None]) -> dict[str, Any]:
    """Keys of a scenario from the options for pictures, clips and sounds."""
    from syncos_jax.scenario.parts import read_redo

    made: dict[str, Any] = {
        name: str(value) if isinstance(value, Path) else value for name, value in given.items()
    }
    if made.get("redo") is not None:
        made["redo"] = read_redo(made["redo"])
    return made
