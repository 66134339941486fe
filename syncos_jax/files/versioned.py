"""JSON files that this package writes and reads again: each says its format and its version."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.files.atomic import replacing
from syncos_jax.files.text import short


@dataclass(frozen=True)
class FileFormat:
    """A kind of JSON file: a mapping with ``format`` and ``version`` beside its own keys.

    Attributes:
      name: what stands under ``format``.
      what: the file in words, for errors: "the record of a video".
      remedy: what to do where a file is not of this kind, or damaged.
      remedy_version: what to do where it is of another version.
      version: what stands under ``version``.
      max_bytes: larger files are neither written nor read.
    """

    name: str
    what: str
    remedy: str
    remedy_version: str = "use the version of syncos_jax that wrote it"
    version: int = 1
    max_bytes: int = 256_000_000

    @property
    def head(self) -> dict[str, Any]:
        """The two keys that every file of this kind begins with."""
        return {"format": self.name, "version": self.version}

    def read(self, path: str | os.PathLike[str]) -> dict[str, Any]:
        """The mapping that a file holds.

        Raises:
          FileNotFoundError: there is no such file.
          InputError: it cannot be read, or is of another format or version; names the file and says
            what to do.
        """
        return self.checked(self._parse(Path(path)), path)

    def checked(self, data: Any, path: str | os.PathLike[str]) -> dict[str, Any]:
        """`data`, what the file `path` holds, where it is of this format and version; raises
        InputError as `read`."""
        found = data.get("format") if isinstance(data, dict) else None
        if not isinstance(data, dict) or found != self.name:
            raise InputError(
                f"{path}: is not {self.what} (format: {short(found)}, expected {self.name!r}); "
                f"{self.remedy}"
            )
        if data.get("version") != self.version:
            raise InputError(
                f"{path}: version: is {short(data.get('version'))}, this package reads "
                f"{self.version}; {self.remedy_version}"
            )
        return data

    def _parse(self, path: Path) -> Any:
        try:
            if path.exists() and not path.is_file():
                raise InputError(f"{path}: is not a regular file; {self.remedy}")
            with path.open("rb") as file:
                raw = file.read(self.max_bytes + 1)
            if len(raw) > self.max_bytes:
                raise InputError(
                    f"{path}: is larger than {self.max_bytes // 1_000_000} MB; {self.remedy}"
                )
            return json.loads(raw.decode("utf-8"))
        except (FileNotFoundError, InputError):
            raise
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:  # JSON and UTF-8 both
            raise InputError(f"{path}: is not readable as JSON: {error}; {self.remedy}") from error

    def holds(self, path: str | os.PathLike[str]) -> bool:
        """Whether a file is of this format, of whatever version."""
        try:
            data = self._parse(Path(path))
        except (OSError, InputError):
            return False
        return isinstance(data, dict) and data.get("format") == self.name

    def write(
        self, path: str | os.PathLike[str], data: Mapping[str, Any], *, durable: bool = False
    ) -> Path:
        """Writes a file, in its place only when it is complete.

        Args:
          path: the file.
          data: its own keys; ``format`` and ``version`` are put before them.
          durable: returns only when it is on the disk, so that it outlives a loss of power.

        Raises InputError where it would be larger than can be read again, OSError where writing
        fails.
        """
        raw = self.encoded(path, data)
        with replacing(path) as temporary, temporary.open("wb") as file:
            file.write(raw)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        return Path(path)

    def encoded(self, path: str | os.PathLike[str], data: Mapping[str, Any]) -> bytes:
        """What `write` writes to `path`; raises InputError where it would be too large."""
        content = {**self.head, **data}
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        raw = text.encode()
        if len(raw) > self.max_bytes:
            raise InputError(f"{path}: is full ({self.max_bytes // 1_000_000} MB); move it away")
        return raw
