"""Batches written in a spreadsheet: a table with one video per row, as .csv or .tsv."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.files.text import did_you_mean
from syncos_jax.scenario.parts import read_redo
from syncos_jax.scenario.prompts import DEFAULT_SECONDS, split_prompts
from syncos_jax.scenario.scenario import braces_doubled

DELIMITERS = {".csv": ",", ".tsv": "\t"}
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def rows_of(path: str | os.PathLike[str]) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yields (line, cells) of each row of a table: the filled cells by their columns' names.

    Raises:
        InputError: no such file, not a table, or an unknown column.
    """
    source = Path(path)
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            # Spreadsheets write semicolons where the decimal sign is the comma.
            expected = DELIMITERS[source.suffix.lower()]
            delimiter = max((expected, ";", "\t"), key=first.count)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            names = [name.strip().lower() for name in next(reader, [])]
            _check(source, names)
            for row in reader:
                if len(row) > len(names):
                    raise InputError(
                        f"{len(row)} cells, but the first line has {len(names)}",
                        place=f"{source}:{reader.line_num}",
                        remedy=f"put texts that contain {delimiter!r} in quotes",
                    )
                cells = {n: " ".join(c.split()) for n, c in zip(names, row, strict=False)}
                if any(cells.values()):
                    yield reader.line_num, {name: cell for name, cell in cells.items() if cell}
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(
            f"not readable as a table: {error}", place=source, remedy="save it as CSV UTF-8"
        ) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", place=source) from error


def scenario_of(cells: Mapping[str, str]) -> dict[str, Any]:
    """The mapping of a scenario file, and ``name``, from a row's cells.

    Raises:
        InputError: no prompt, or a cell that its column does not take.
    """
    prompts = split_prompts(cells["prompt"]) if "prompt" in cells else []
    if not prompts:
        raise InputError("the row has no prompt", place="prompt", remedy="write 'first | second'")
    story = {key: read(cells[key]) for key, read in _COLUMNS.items() if key in cells}
    lengths = {key: story.pop(key) for key in ("seconds", "frames") if key in story}
    if not lengths:
        lengths = {"seconds": DEFAULT_SECONDS}
    story.pop("prompt")
    name = story.pop("name", None)
    story["structured"] = "global" in story
    story["events"] = [{"prompt": prompt, **lengths} for prompt in prompts]
    return {**braces_doubled(story), "name": name}


def _check(source: Path, names: list[str]) -> None:
    for name in names:
        if name not in _COLUMNS:
            raise InputError(
                f"unknown column {name!r}{did_you_mean(name, _COLUMNS)}", place=f"{source}:1"
            )
        if names.count(name) > 1:
            raise InputError(f"two columns {name!r}", place=f"{source}:1", remedy="remove one")
    if "prompt" not in names:
        raise InputError(
            "the first line names no column 'prompt'",
            place=f"{source}:1",
            remedy="begin with a line such as name,global,prompt,image",
        )


def _number(kind: Callable[[str], Any], key: str, text: str) -> Any:
    try:
        return kind(text.replace(",", "."))
    except ValueError:
        raise InputError(place=key, expected="a number", value=text) from None


def _truth(key: str, text: str) -> bool:
    if text.lower() not in _TRUTH:
        raise InputError(place=key, expected="true or false", value=text)
    return _TRUTH[text.lower()]


_COLUMNS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("name", "global", "prompt", "negative"), str),
    **{key: partial(_number, float, key) for key in ("seconds", "fps")},
    **{key: partial(_number, int, key) for key in ("frames", "seed")},
    **dict.fromkeys(("image", "end_image", "extend", "fit", "audio"), str),
    **{key: partial(_truth, key) for key in ("join", "reference", "loop_audio")},
    "redo": read_redo,
}
"""Columns, and how a cell is read; all but ``name`` and ``prompt`` are keys of a scenario."""
