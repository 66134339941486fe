"""``syncos verify``: what marks a video carries, and whether they hold."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from syncos_jax.cli.console import FAILED, user_errors
from syncos_jax.errors import InputError

if TYPE_CHECKING:
    from syncos_jax.media.marking import Marks

EXAMPLES = """Examples:
  syncos verify ball.mp4
  syncos verify videos/*.mp4 --trust authority.pem --json
"""


def verify(
    files: Annotated[list[Path], typer.Argument(help="Videos.", metavar="FILE...")],
    trust: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.pem",
            help="Certificates of the authorities you trust. Without it every signer is unknown.",
            show_default=False,
        ),
    ] = None,
    register: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the register (register.jsonl); by default the video's own.",
            show_default=False,
        ),
    ] = None,
    search: Annotated[
        bool,
        typer.Option(
            help="Look for watermarks in resized, cropped and retimed videos, too (seconds each)."
        ),
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check how videos are marked: Content Credentials, watermark, register.

    Exit code 0: at least one mark on every video, and all marks agree. 1: a video is unmarked,
    changed after signing, or its marks contradict one another. 2: a file cannot be read.
    """
    with user_errors():
        from syncos_jax.media import marking

        trusted = None if trust is None else marking.trust_list(trust)
        for file in files:
            if not file.exists():
                raise InputError("no such file", place=file)
        found = [
            marking.verify(file, trusted=trusted, register=register, search=search)
            for file in files
        ]
        if as_json:
            typer.echo(json.dumps([dataclasses.asdict(marks) for marks in found], indent=1))
        else:
            _print(found)
        if not all(marks.marked and not marks.problems for marks in found):
            raise typer.Exit(FAILED)


def _print(found: list[Marks]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("file", "credentials", "signer", "watermark", "register", "problems"):
        table.add_column(column, overflow="fold")
    for marks in found:
        watermark = marks.run_id or marks.watermark
        if marks.watermark != "none":
            watermark += f" (false alarm < {marks.false_alarm:.0e})"
        table.add_row(
            marks.file,
            marks.credentials.state,
            marks.credentials.signer,
            watermark,
            marks.register,
            "; ".join(marks.problems) or ("" if marks.marked else "not marked"),
        )
    Console(highlight=False, markup=False).print(table)
