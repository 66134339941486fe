"""A folder of compiled programs that several processes share without locks.

JAX's own cache writes a program in place and the time of its last use next to it. A process killed
in between leaves an orphan, and with a size limit that orphan stops every later program from being
stored. Here a program is one file that begins with its hash and is renamed into place when
complete: truncated or foreign files are detected on reading, removed, and compiled again.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

_SUFFIX = ".program"
_MAGIC = b"syncos program 1\n"
_HASH_BYTES = 32
_OLD_SECONDS = 3600.0
_KEY = re.compile(r"[A-Za-z0-9_.-]+")


class Programs:
    """The cache that JAX asks for compiled programs (its ``CacheInterface``).

    Args:
      folder: must exist.
      max_bytes: size limit; the least recently used programs are removed.

    Attributes:
      failed: programs that could not be stored.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._path = folder  # JAX looks at this name
        self.max_bytes = max_bytes
        self.failed = 0

    def get(self, key: str) -> bytes | None:
        """The program of a key; None if there is none, or a damaged one, which is removed."""
        path = self._file(key)
        try:
            raw = path.read_bytes()
        except OSError:
            return None
        start = len(_MAGIC) + _HASH_BYTES
        value = raw[start:]
        if raw[:start] != _MAGIC + hashlib.sha256(value).digest():
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):  # time of last use
            os.utime(path)
        return value

    def put(self, key: str, value: bytes) -> None:
        """Stores a program; if it cannot be written (a full disk), it is counted in `failed`."""
        if len(value) > self.max_bytes:
            self.failed += 1
            return
        path = self._file(key)
        try:
            handle, name = tempfile.mkstemp(dir=self._path, prefix=".", suffix=_SUFFIX)
        except OSError:
            self.failed += 1
            return
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_MAGIC + hashlib.sha256(value).digest())
                file.write(value)
            os.replace(name, path)
        except OSError:
            with suppress(OSError):
                os.unlink(name)
            self.failed += 1
            return
        self.prune()

    def prune(self) -> int:
        """Removes programs beyond `max_bytes` and leftovers of killed processes and of earlier
        versions; returns how many files."""
        count, size, now = 0, 0, _now(self._path)
        found: list[tuple[float, int, str]] = []
        with suppress(OSError):
            for entry in os.scandir(self._path):
                with suppress(OSError):
                    about = entry.stat()
                    unfinished = entry.name.startswith(".") and entry.name.endswith(_SUFFIX)
                    earlier = entry.name.endswith(("-cache", "-atime"))
                    if earlier or (unfinished and now - about.st_mtime > _OLD_SECONDS):
                        os.unlink(entry.path)
                        count += 1
                    elif entry.name.endswith(_SUFFIX) and not unfinished:
                        found.append((about.st_mtime, about.st_size, entry.path))
        for _, bytes_, path in sorted(found, reverse=True):
            size += bytes_
            if size > self.max_bytes:
                with suppress(OSError):
                    os.unlink(path)
                    count += 1
        return count

    def _file(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            key = hashlib.sha256(key.encode()).hexdigest()
        return self._path / f"{key}{_SUFFIX}"


def _now(folder: Path) -> float:
    """The time of the folder's file system, whose clock may be another machine's."""
    with suppress(OSError), tempfile.TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_mtime
    return 0.0


def use(folder: Path, max_bytes: int) -> Programs | None:
    """Makes JAX store its programs in `folder` in this way; None where that is not possible.

    JAX has no public interface for this, so the function with which it opens a cache is replaced
    (``jax._src.compilation_cache.get_file_cache``); without that function JAX's own cache is used.
    """
    try:
        from jax._src import compilation_cache as inside

        opens: Any = inside.get_file_cache
    except (ImportError, AttributeError):
        return None
    programs = Programs(folder, max_bytes)
    programs.prune()
    if not _in_use:

        def open_cache(path: str) -> Any:
            return (_in_use[path], path) if path in _in_use else opens(path)

        inside.get_file_cache = open_cache
    _in_use[str(folder)] = programs
    return programs


_in_use: dict[str, Programs] = {}


def in_use(folder: Path) -> Programs | None:
    """The cache that `use` installed for `folder`."""
    return _in_use.get(str(folder))
