"""The videos of a batch, read from a file or a folder of scenarios."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.files.documents import MAX_BYTES, unique
from syncos_jax.files.text import short
from syncos_jax.runs.table import DELIMITERS, rows_of, scenario_of
from syncos_jax.scenario.template import Take, Template, slug

MAX_ITEMS = 100_000
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Item:
    """A video of a batch.

    Attributes:
      name: its name, without a suffix; unique in the batch.
      file: the file that its scenario was read from.
      source: the file, with the line of a .jsonl file or table.
      take: its scenario; None if it cannot be read.
      error: why it cannot be read.
    """

    name: str
    file: Path
    source: str
    take: Take | None = None
    error: InputError | None = None

    def absolute(self) -> Item:
        """The item with absolute paths of pictures, clips and sounds, for another process."""
        if self.take is None:
            return self
        scenario = self.take.scenario.relative_to(Path.cwd())
        return replace(self, take=replace(self.take, scenario=scenario))


def read_items(source: str | os.PathLike[str], seeds: Sequence[int] | None = None) -> list[Item]:
    """The videos of a folder of scenario files, or of a file with one scenario per line or row.

    A scenario that cannot be read becomes an item with an `error`.

    Args:
      source: a folder with .yaml, .yml and .json files; a .jsonl file, in which each line is a
        scenario as JSON and may have a ``name`` (without one it is named after its line, 0001); or
        a table with a scenario in each row (`syncos_jax.runs.table`). Paths in it are relative to
        the folder of the file.
      seeds: make one video for each, called NAME-seed3; None for the scenarios' own seeds.

    Raises:
      InputError: no such source, nothing in it, or more than `MAX_ITEMS`.
    """
    path = Path(source)
    folder = path.is_dir()
    if folder:
        entries = _of_folder(path)
    elif path.suffix.lower() in DELIMITERS:
        entries = _of_table(path)
    else:
        entries = _of_lines(path)
    items: list[Item] = []
    names: dict[str, str] = {}
    for default, location, read in entries:
        file = Path(location) if folder else path
        if len(items) > MAX_ITEMS:
            raise InputError(f"makes more than {MAX_ITEMS} videos", place=path, remedy="split it")
        try:
            given, template = read()
            name = default if given is None else given
            check_name(name, location)
            found = [
                Item(f"{name}-{take.name}" if take.name else name, file, location, take)
                for take in template.expand(None, seeds)
            ]
            for item in found:
                if item.name in names:
                    raise InputError(
                        f"the name {item.name!r} is also that of {names[item.name]}",
                        place=location,
                        remedy="give each its own",
                    )
        except InputError as error:
            name = default
            while name in names:
                name += "-broken"
            found = [Item(name, file, location, error=error)]
        names.update((item.name, location) for item in found)
        items += found
    if not items:
        what = f"has no {', '.join(_SUFFIXES)} file" if folder else "has no scenario"
        raise InputError(what, place=path)
    return items


def check_name(name: Any, location: str) -> None:
    """Raises InputError if a video's name cannot be that of its file."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(
            place=(location, "name"),
            value=name,
            expected="up to 100 letters, digits, _, . or -, not beginning with . or -",
        )


Read = Callable[[], tuple[Any, Template]]


def _of_folder(folder: Path) -> Iterator[tuple[str, str, Read]]:
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in _SUFFIXES and path.is_file() and not path.name.startswith("."):
            # A name such as "älter (2)" is transliterated.
            name = path.stem if _NAME.fullmatch(path.stem) else slug(path.stem)
            yield name, str(path), partial(_read_file, path)


def _of_lines(path: Path) -> Iterator[tuple[str, str, Read]]:
    if path.suffix.lower() != ".jsonl":
        raise InputError(
            "not a folder of scenario files, a .jsonl file or a .csv table"
            if path.exists()
            else "no such file",
            place=path,
        )
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_BYTES + 1), b""), 1):
                if len(line) > MAX_BYTES:
                    limit = f"longer than {MAX_BYTES // 10**6} MB"
                    raise InputError(limit, place=f"{path}:{number}")
                if line.strip():
                    location = f"{path}:{number}"
                    yield f"{number:04}", location, partial(_parse, line, location)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", place=path) from error


def _of_table(path: Path) -> Iterator[tuple[str, str, Read]]:
    for number, (line, cells) in enumerate(rows_of(path), 1):
        location = f"{path}:{line}"
        yield f"{number:04}", location, partial(_read_row, cells, location)


def _read_row(cells: Mapping[str, str], location: str) -> tuple[Any, Template]:
    try:
        data = scenario_of(cells)
    except InputError as error:
        raise error.in_key().within(location) from None
    return data.pop("name"), Template.from_dict(data, source=location)


def _read_file(path: Path) -> tuple[Any, Template]:
    return None, Template.from_file(path)


def _parse(line: bytes, location: str) -> tuple[Any, Template]:
    try:
        data = json.loads(line.decode("utf-8-sig"), object_pairs_hook=unique)
    except InputError as error:
        raise error.within(location) from error
    except json.JSONDecodeError as error:
        found = f"{error.msg}, column {error.colno}" if error.lineno == 1 else "it ends too early"
        raise InputError(f"not readable as JSON: {found}", place=location) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"not readable as JSON: {error}", place=location) from error
    if not isinstance(data, dict):
        raise InputError(f"contains {short(data)}", place=location, expected="a mapping")
    name = data.pop("name", None)
    return name, Template.from_dict(data, source=location)
