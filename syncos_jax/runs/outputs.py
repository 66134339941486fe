"""Where the videos of a batch go: a folder, or a place in an object store.

Object stores (``s3://bucket/videos``, ``gs://...``) are reached through `etils.epath` and `fsspec`.
A file is there whole or not at all: in a folder it is renamed into its place, and a store shows an
object once all of it has come.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from etils import epath

from syncos_jax.errors import InputError
from syncos_jax.files import cache_folder, replacing

_EXTRAS = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
_AT_A_TIME = 16


def is_remote(place: str | os.PathLike[str]) -> bool:
    """Whether it is in an object store."""
    return "://" in str(place)


def remote_path(place: str) -> epath.Path:
    """A path in an object store.

    Raises InputError for a store that is not known, or whose package is not installed.
    """
    scheme = place.partition("://")[0]
    if scheme not in _EXTRAS:
        known = ", ".join(f"{name}://" for name in _EXTRAS)
        raise InputError(f"{place}: no such kind of place; give a folder, or one of {known}")
    try:
        __import__(_EXTRAS[scheme])
    except ImportError:
        raise InputError(
            f"{place}: needs the package {_EXTRAS[scheme]}; pip install {_EXTRAS[scheme]}"
        ) from None
    return epath.Path(place)


class Outputs:
    """The place of a batch's videos.

    Args:
      place: a folder, which is made where its parent is one; or an address in an object store.
      work: for an object store, the folder of this machine (or a shared one) where videos are made
        and the state of their runs is kept until they are sent; default: one in the cache folder.
      make: False to read only; no folder is made.

    Attributes:
      root: the place.
      work: where files are made: the place itself, if that is a folder.
      remote: whether they are then sent.

    Raises InputError where there is no such place, or it cannot be reached.
    """

    def __init__(
        self,
        place: str | os.PathLike[str],
        work: str | os.PathLike[str] | None = None,
        *,
        make: bool = True,
    ) -> None:
        self.remote = is_remote(place)
        if not self.remote:
            self.work = Path(place)
            if not make:
                self.root = epath.Path(self.work)
                return
            if not self.work.parent.is_dir():
                raise InputError(f"`out={place}`: {self.work.parent} does not exist; make it first")
            if self.work.exists() and not self.work.is_dir():
                raise InputError(f"`out={place}`: is not a folder; choose another name")
            self.work.mkdir(exist_ok=True)
            self.root = epath.Path(self.work)
            return
        self.root = remote_path(str(place).rstrip("/"))
        name = hashlib.sha256(str(self.root).encode()).hexdigest()[:16]
        self.work = Path(work) if work is not None else cache_folder() / "batch" / name
        if make:
            self.work.mkdir(parents=True, exist_ok=True)

    def names(self, folder: str = "") -> set[str]:
        """What there is in the place, or in a folder of it; empty where that does not exist."""
        path = self.root / folder if folder else self.root
        try:
            return {entry.name for entry in path.iterdir()}
        except (FileNotFoundError, NotADirectoryError):
            return set()
        except Exception as error:  # each store has its own classes
            raise unreachable(self.root, error) from error

    def has(self, name: str) -> bool:
        """Whether there is a file of this name in the place."""
        try:
            return (self.root / name).exists()
        except Exception as error:
            raise unreachable(self.root, error) from error

    def read(self, name: str) -> bytes | None:
        """What a file holds; None where there is none."""
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            return None
        except Exception as error:
            raise unreachable(self.root / name, error) from error

    def read_all(self, names: list[str]) -> list[bytes | None]:
        """As `read`, of many, several at a time."""
        if not self.remote:
            return [self.read(name) for name in names]
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            return list(pool.map(self.read, names))

    def write(self, name: str, content: bytes) -> None:
        """Writes a file of the place, in a folder of it or not."""
        path = self.root / name
        if self.remote:
            try:
                path.write_bytes(content)
            except Exception as error:
                raise unreachable(path, error) from error
            return
        local = Path(path)
        local.parent.mkdir(parents=True, exist_ok=True)
        with replacing(local) as temporary:
            temporary.write_bytes(content)

    def publish(self, path: Path) -> None:
        """Sends a file that was made in `work` to the place, and removes it here."""
        if not self.remote:
            return
        target = self.root / path.name
        try:
            with path.open("rb") as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, 2**23)
        except FileNotFoundError:
            raise
        except Exception as error:
            raise unreachable(target, error) from error
        path.unlink()


def unreachable(path: object, error: Exception) -> OSError:
    """The error of an object store as one of this kind, with its place."""
    if isinstance(error, OSError) and error.filename:
        return error
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return OSError(None, f"cannot be reached: {reason}", str(path))
