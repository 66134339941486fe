"""The local register of what was made: ``register.jsonl``, one line a video, hash-chained.

Every line holds the SHA-256 of the line before it, and a signed video names its own line and that
hash; so a line that was changed or removed is noticed, the last ones as long as one of their
videos is there. Nothing stops a person from rewriting all of it: a register proves order and
completeness to those who keep a copy of its last hash.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from syncos_jax.errors import InputError

FILE = "register.jsonl"
LOCK = ".register.lock"
FIRST = "0" * 64
"""What the first line holds in place of a hash."""


@dataclass(frozen=True)
class Place:
    """Where the next line goes: its number, from 1, and the hash of the line before it."""

    line: int
    previous: str


class Register:
    """A register in a folder.

    Args:
        folder: that of the videos; the file is made with its first line.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder) / FILE

    @contextmanager
    def next_line(self) -> Iterator[tuple[Place, dict[str, Any]]]:
        """Yields the place of the next line and a dict to fill; appends it, durably, at the end.

        Other processes wait. When the body raises, nothing is written.

        Raises:
            InputError: the register is damaged.
            OSError: it cannot be written.
        """
        with FileLock(self.path.with_name(LOCK)):
            lines = self._lines()
            place = Place(len(lines) + 1, _hash(lines[-1]) if lines else FIRST)
            entry: dict[str, Any] = {}
            yield place, entry
            text = json.dumps({"previous": place.previous, **entry}, sort_keys=True)
            with self.path.open("a+b") as file:
                file.truncate(sum(len(line) + 1 for line in lines))  # what a killed writer left
                file.write(text.encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())

    def entries(self) -> list[Mapping[str, Any]]:
        """All lines, checked.

        Raises:
            InputError: names the first line that was changed, or after which one is missing.
        """
        entries: list[Mapping[str, Any]] = []
        previous = FIRST
        for number, line in enumerate(self._lines(), 1):
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise InputError(f"{self.path}: line {number} is damaged") from error
            if not isinstance(entry, dict) or entry.get("previous") != previous:
                raise InputError(
                    f"{self.path}: line {number} does not follow from the line before it: a line "
                    "was changed, moved or removed here"
                )
            entries.append(entry)
            previous = _hash(line)
        return entries

    def holds(self, place: Mapping[str, Any]) -> bool:
        """Whether the line a video names is there, after the line whose hash it names."""
        entries = self.entries()
        line = place.get("line")
        if not isinstance(line, int) or not 1 <= line <= len(entries):
            return False
        return entries[line - 1]["previous"] == place.get("previous")

    def _lines(self) -> list[bytes]:
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return []
        return data.split(b"\n")[:-1]  # a line without its end was never finished


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def input_sha256(path: str | os.PathLike[str]) -> str:
    """`file_sha256`; of a folder of frames, SHA-256 of its frames' hashes in order of name."""
    if not Path(path).is_dir():
        return file_sha256(path)
    return _hash("".join(map(file_sha256, sorted(Path(path).glob("*.png")))).encode())


def _hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
