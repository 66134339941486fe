"""JSON files that this package writes and reads back: each names its format and version."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from syncos_jax.errors import InputError, Text, short
from syncos_jax.files.atomic import replacing


@dataclass(frozen=True)
class FileFormat:
    """A kind of JSON file: a mapping with ``format``, ``version`` and the file's own keys.

    Attributes:
      name: value of ``format``.
      what: what the file is, for errors: "the metadata file of a video".
      remedy: what to do about a file of another kind, or a damaged one.
      remedy_version: what to do about a file of another version.
      version: value of ``version``.
      max_bytes: larger files are neither written nor read.
    """

    name: str
    what: str
    remedy: Text
    remedy_version: Text = "use the version of syncos_jax that wrote it"
    version: int = 1
    max_bytes: int = 256_000_000

    @property
    def head(self) -> dict[str, Any]:
        """The two keys that every file of this kind begins with."""
        return {"format": self.name, "version": self.version}

    def read(self, path: str | os.PathLike[str]) -> dict[str, Any]:
        """The mapping in a file.

        Raises:
          FileNotFoundError: no such file.
          InputError: it cannot be read, or has another format or version.
        """
        return self.checked(self._parse(Path(path)), path)

    def checked(self, data: Any, path: str | os.PathLike[str]) -> dict[str, Any]:
        """`data`, the content of the file `path`, if format and version are right.

        Raises:
          InputError: as `read`.
        """
        found = data.get("format") if isinstance(data, dict) else None
        if not isinstance(data, dict) or found != self.name:
            raise InputError(
                f"not {self.what} (format: {short(found)}, expected {self.name!r})",
                place=path,
                remedy=self.remedy,
            )
        if type(data.get("version")) is not int or data["version"] != self.version:
            raise InputError(
                f"has version {short(data.get('version'))}, but this package reads {self.version}",
                place=path,
                remedy=self.remedy_version,
            )
        return data

    def _parse(self, path: Path) -> Any:
        try:
            if path.exists() and not path.is_file():
                raise InputError("not a regular file", place=path, remedy=self.remedy)
            with path.open("rb") as file:
                raw = file.read(self.max_bytes + 1)
            if len(raw) > self.max_bytes:
                limit = f"larger than {self.max_bytes // 1_000_000} MB"
                raise InputError(limit, place=path, remedy=self.remedy)
            return json.loads(raw.decode("utf-8"))
        except (FileNotFoundError, InputError):
            raise
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror or error}", place=path) from error
        except (ValueError, RecursionError) as error:  # invalid JSON or UTF-8
            raise InputError(
                f"not readable as JSON: {error}", place=path, remedy=self.remedy
            ) from error

    def holds(self, path: str | os.PathLike[str]) -> bool:
        """Whether a file is of this format, of any version."""
        try:
            data = self._parse(Path(path))
        except (OSError, InputError):
            return False
        return isinstance(data, dict) and data.get("format") == self.name

    def write(self, path: str | os.PathLike[str], data: Mapping[str, Any]) -> Path:
        """Writes a file atomically and durably (`replacing`); returns its path.

        Args:
          path: the file.
          data: its own keys; ``format`` and ``version`` are added in front.

        Raises:
          InputError: it would be too large to be read back.
          OSError: writing failed.
        """
        raw = self.encoded(path, data)
        with replacing(path) as temporary:
            temporary.write_bytes(raw)
        return Path(path)

    def encoded(self, path: str | os.PathLike[str], data: Mapping[str, Any]) -> bytes:
        """The bytes that `write` writes to `path`; raises InputError if they are too many."""
        content = {**self.head, **data}
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        raw = text.encode()
        if len(raw) > self.max_bytes:
            full = f"would be larger than {self.max_bytes // 1_000_000} MB"
            raise InputError(full, place=path, remedy="move the file away to start a new one")
        return raw
