"""Where the videos of a batch go: a folder, or a place in an object store.

Object stores (``s3://bucket/videos``, ``gs://...``, ``az://...``) are accessed through `fsspec`. A
file appears whole or not at all: in a folder it is renamed into place, and a store publishes an
object once all of it has arrived.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.files import cache_folder, replacing

_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
_CONCURRENT_READS = 16


def is_remote(place: str | os.PathLike[str]) -> bool:
    """Whether a place is an address in an object store."""
    return "://" in str(place)


def remote_filesystem(place: str) -> tuple[Any, str]:
    """The `fsspec` file system of an address in an object store, and the path in it.

    Listings are not cached: other processes write to the same place.

    Raises:
      InputError: unknown kind of store, or its package is not installed.
    """
    scheme = place.partition("://")[0]
    if scheme not in _PACKAGES:
        known = ", ".join(f"{name}://" for name in _PACKAGES)
        raise InputError(
            "unknown kind of object store", place=place, expected=f"a folder, or one of {known}"
        )
    package = _PACKAGES[scheme]
    try:
        from fsspec.core import url_to_fs

        return url_to_fs(place, use_listings_cache=False)
    except ImportError:
        raise InputError(
            f"needs the package {package}", place=place, remedy=f"pip install {package}"
        ) from None


class Outputs:
    """The place of a batch's videos.

    Args:
      place: a folder, created if its parent exists; or an address in an object store.
      work: for an object store, the folder where videos and run states are kept until they are
        sent; default: one in the cache folder.
      make: False to read only; creates no folder.

    Attributes:
      place: as given, without a trailing slash.
      work: where files are made: the place itself, if it is a folder.
      remote: whether files are then sent to an object store.

    Raises:
      InputError: no such place, or no access to it.
    """

    def __init__(
        self,
        place: str | os.PathLike[str],
        work: str | os.PathLike[str] | None = None,
        *,
        make: bool = True,
    ) -> None:
        self.remote = is_remote(place)
        if self.remote:
            self.place = str(place).rstrip("/")
            self._fs, self._root = remote_filesystem(self.place)
            name = hashlib.sha256(self.place.encode()).hexdigest()[:16]
            self.work = Path(work) if work is not None else cache_folder() / "batch" / name
            if make:
                self.work.mkdir(parents=True, exist_ok=True)
            return
        self.place = str(Path(place))
        self.work = Path(place)
        if not make:
            return
        if not self.work.parent.is_dir():
            raise InputError(
                f"{self.work.parent} does not exist",
                argument="out",
                value=str(place),
                remedy="create it first",
            )
        if self.work.exists() and not self.work.is_dir():
            raise InputError(
                f"{place} is not a folder", argument="out", remedy="choose another name"
            )
        self.work.mkdir(exist_ok=True)

    def address(self, name: str) -> str:
        """The path or address of a file in the place."""
        return f"{self.place}/{name}"

    def names(self, folder: str = "") -> set[str]:
        """Names of the files and folders in the place, or in a folder of it; empty if missing."""
        try:
            if not self.remote:
                return {path.name for path in (self.work / folder).iterdir()}
            listed = self._fs.ls(f"{self._root}/{folder}".rstrip("/"), detail=False)
            return {path.rstrip("/").rpartition("/")[2] for path in listed}
        except (FileNotFoundError, NotADirectoryError):
            return set()
        except Exception as error:  # each store has its own exceptions
            raise unreachable(self.place, error) from error

    def has(self, name: str) -> bool:
        """Whether the place has a file of this name."""
        try:
            if not self.remote:
                return (self.work / name).exists()
            return bool(self._fs.exists(f"{self._root}/{name}"))
        except Exception as error:
            raise unreachable(self.place, error) from error

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if there is none."""
        try:
            if not self.remote:
                return (self.work / name).read_bytes()
            return bytes(self._fs.cat_file(f"{self._root}/{name}"))
        except FileNotFoundError:
            return None
        except Exception as error:
            raise unreachable(self.address(name), error) from error

    def read_all(self, names: list[str]) -> list[bytes | None]:
        """As `read`, for several files; from an object store, many at a time."""
        if not self.remote:
            return [self.read(name) for name in names]
        with ThreadPoolExecutor(_CONCURRENT_READS) as pool:
            return list(pool.map(self.read, names))

    def write(self, name: str, content: bytes) -> None:
        """Writes a file of the place; `name` may contain folders."""
        if self.remote:
            try:
                self._fs.pipe_file(f"{self._root}/{name}", content)
            except Exception as error:
                raise unreachable(self.address(name), error) from error
            return
        path = self.work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(content)

    def publish(self, path: Path) -> None:
        """Sends a file made in `work` to the place and removes it here; nothing for a folder.

        An upload that fails publishes nothing: an older object of this name stays as it was.
        (Leaving ``fs.open(..., "wb")`` on an exception would publish the part sent so far.)
        """
        if not self.remote:
            return
        size = path.stat().st_size
        target = f"{self._root}/{path.name}"
        try:
            self._fs.put_file(str(path), target)
            sent = int(self._fs.info(target)["size"])
            if sent != size:
                raise OSError(f"{sent} of {size} bytes arrived")
        except Exception as error:
            raise unreachable(self.address(path.name), error) from error
        path.unlink()


def unreachable(place: str, error: Exception) -> OSError:
    """An object store's exception as an OSError that names the place."""
    if isinstance(error, OSError) and error.filename:
        return error
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return OSError(None, f"cannot be reached: {reason}", place)
