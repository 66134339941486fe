"""Writes files and folders atomically and durably: temporary name, sync to disk, rename."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from syncos_jax.errors import InputError

_LOCK = "in-use"
"""File in a temporary folder that its process holds locked."""
_RANDOM = re.compile(r"[a-z0-9_]{8}")
_MIN_AGE = 1.0
"""Seconds. Younger leftovers are kept: there is a moment between creating and locking a file."""
_CLOCK_SKEW = 60.0
"""Seconds. Files dated further in the future were made before a clock was set back."""
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # Linux: renameat2


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Checks that a file could be written at `path`, without touching what is there.

    Call it before hours of sampling.

    Raises:
      InputError: `path` is empty, a folder or a device, or its folder is missing or not writable.
    """
    target = Path(path)
    if not str(path):
        raise InputError("'' is not a file name", remedy="give a path such as out.mp4")
    folder = target.parent
    try:
        if target.is_dir():
            raise InputError("is a folder", place=target, remedy="give the name of a file in it")
        if target.exists() and not target.is_file():
            raise InputError("not a regular file", place=target, remedy="choose another name")
        if not folder.is_dir():
            what = "is not a folder" if folder.exists() else "does not exist"
            raise InputError(
                f"cannot write the file: {folder} {what}", place=target, remedy="create it first"
            )
        with suppress(FileNotFoundError):  # fails where the file system refuses the name
            os.lstat(target)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except InputError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"cannot write the file: {reason}", place=target, remedy="choose another place"
        ) from error
    return target


@contextmanager
def replacing(path: str | os.PathLike[str], *, durable: bool = True) -> Iterator[Path]:
    """Yields a temporary path next to `path` with its suffix, and renames it to `path` at the end.

    If the body raises, `path` is unchanged and the temporary file is removed. Leftovers of killed
    processes are removed first. A symbolic link is kept; the file it points to is replaced.

    Args:
      path: the file to write.
      durable: sync the file and its folder to disk, so that the file survives a power loss once
        this returns. Without it, a power loss may leave old or empty content.

    Raises:
      InputError: as `check_writable`.
      OSError: writing failed; its `filename` is `path`.
    """
    target = followed(check_writable(path))
    check_writable(target)
    remove_leftovers(target.parent, [target])
    prefix, suffix = _temporary(target)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=prefix, suffix=suffix)
    temporary = Path(name)
    try:
        _lock(handle)
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp's files are private
        if durable:
            sync(temporary)
        os.replace(temporary, target)
        if durable:
            sync(target.parent)
    except OSError as error:
        if error.errno is None:  # NumPy raises such for a short write
            raise OSError(errno.EIO, str(error), str(target)) from error
        if error.filename is None or str(error.filename) == name:
            with suppress(AttributeError):  # read-only on PyAV's errors
                error.filename = str(target)
        raise
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def replacing_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """As `replacing`, for a folder: yields an empty one, which replaces `path` at the end."""
    target = followed(Path(path))
    with temporary_folder(target) as temporary:
        new = temporary / "new"
        new.mkdir()  # with the user's default permissions
        yield new
        put_folder(new, target, temporary / "old")


def put_folder(new: Path, target: Path, old: Path) -> None:
    """Syncs `new` to disk and renames it to `target`; a folder there becomes `old` or `new`.

    On Linux the two names are exchanged in one step, so `target` always exists.
    """
    for path in [*new.rglob("*"), new]:
        sync(path)
    if target.is_dir() and not _exchange(new, target):
        os.replace(target, old)
    if not target.exists():
        try:
            os.replace(new, target)
        except OSError:
            if old.is_dir():
                os.replace(old, target)
            raise
    sync(target.parent)


def sync(path: str | os.PathLike[str]) -> None:
    """Flushes a file or a folder to disk; does nothing where the file system has no such call."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    finally:
        os.close(handle)


def save_array(file: IO[bytes], array: Any) -> None:
    """Writes an array in .npy format to an open file.

    On a full disk this raises "No space left on device"; `np.save` loses the error number.
    """

    class Writer:  # NumPy writes to real files by itself, and loses the error number
        write = staticmethod(file.write)

    np.lib.format.write_array(Writer, np.asarray(array), allow_pickle=False)  # type: ignore[arg-type]


def _exchange(one: Path, other: Path) -> bool:
    """Swaps the names of two folders in one step; False where the system cannot."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # Linux only
        return False
    names = os.fsencode(one.absolute()), os.fsencode(other.absolute())
    return call(_AT_FDCWD, names[0], _AT_FDCWD, names[1], ctypes.c_uint(_RENAME_EXCHANGE)) == 0


def followed(path: Path) -> Path:
    """Where a symbolic link points to; any other path unchanged."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


@contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """A temporary folder next to `target`, removed at the end.

    The process holds a lock in it, so that only folders of dead processes are removed as leftovers.
    """
    prefix = f".{target.name[:40]}."
    _remove_leftovers(target.parent, {(prefix, "")})
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=prefix))
    handle = -1
    try:
        handle = os.open(temporary / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        _lock(handle)
        yield temporary
    finally:
        if handle >= 0:
            os.close(handle)
        shutil.rmtree(temporary, ignore_errors=True)


def _lock(handle: int) -> bool:
    """Locks an open file; False if another process holds it or the system has no locks."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def _temporary(target: Path) -> tuple[str, str]:
    """Prefix and suffix of a file's temporary names; 8 random characters stand between them."""
    return f".{target.stem[:40]}.", target.suffix


def remove_leftovers(folder: Path, targets: Iterable[Path]) -> int:
    """Removes temporary files that killed processes left in `folder`; returns how many.

    Files that a process holds locked, and very young ones, are kept.

    Args:
      folder: scanned once, not its subfolders.
      targets: the files whose temporary names are looked for.
    """
    return _remove_leftovers(folder, {_temporary(target) for target in targets})


def _remove_leftovers(folder: Path, names: Collection[tuple[str, str]]) -> int:
    suffixes = {suffix for _, suffix in names}

    def ours(name: str) -> bool:
        for suffix in suffixes:
            core = name.removesuffix(suffix)
            if name.endswith(suffix) and _RANDOM.fullmatch(core[-8:]):
                if (core[:-8], suffix) in names:
                    return True
        return False

    try:
        found = [Path(entry.path) for entry in os.scandir(folder) if ours(entry.name)]
    except OSError:
        return 0
    return sum(_removed(path) for path in found)


def _removed(path: Path) -> bool:
    """Removes a temporary file or folder if its process is gone; whether it did."""
    try:
        is_folder = path.is_dir() and not path.is_symlink()
        lock = path / _LOCK if is_folder else path
        if -_CLOCK_SKEW < time.time() - lock.lstat().st_mtime < _MIN_AGE:
            return False
        handle = os.open(lock, os.O_RDWR | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0))
    except OSError:  # already gone, or not our folder
        return False
    try:
        if not _lock(handle):
            return False
        if is_folder:
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        return True
    finally:
        os.close(handle)


def cache_folder() -> Path:
    """The folder for data that can be made again: ``$SYNCOS_CACHE``, else ``syncos_jax`` in
    ``$XDG_CACHE_HOME`` or ``~/.cache``. It may not exist yet.

    A user without a home gets a private folder among the system's temporary files.

    Raises:
      InputError: there is no home, and the temporary folder belongs to another user.
    """
    own = os.environ.get("SYNCOS_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "syncos_jax"
    except RuntimeError:  # no HOME, and the user is not in the password database
        folder = Path(tempfile.gettempdir()) / f"syncos_jax-{os.getuid()}"
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        if not folder.is_symlink() and folder.stat().st_uid == os.getuid():
            return folder
    raise InputError(
        "there is no home folder for the cache",
        place=folder,
        remedy="set SYNCOS_CACHE to a folder of yours",
    )
