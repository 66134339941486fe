"""Writing results: checked before the work, and in place only once complete."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from syncos_jax.errors import InputError


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Makes sure that a file could be written at ``path``, without touching what is there.

    To be called before hours of sampling. Raises InputError when ``path`` is a folder or a device,
    when its folder does not exist, or when no file can be made in that folder.
    """
    target = Path(path)
    if not str(path):
        raise InputError("'' is not the name of a file; give a path such as out.mp4")
    folder = target.parent
    try:
        if target.is_dir():
            raise InputError(f"{target} is a folder; give the name of a file in it")
        if target.exists() and not target.is_file():
            raise InputError(f"{target} exists and is not a regular file; choose another name")
        if not folder.is_dir():
            what = "is not a folder" if folder.exists() else "does not exist"
            raise InputError(f"cannot write {target}: {folder} {what}; make it first")
        with suppress(FileNotFoundError):  # whether the file system can have such a name
            os.lstat(target)
        with tempfile.TemporaryFile(dir=folder):  # without a name, where the system has such
            pass
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot write {target}: {reason}; choose another place") from error
    return target


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary name beside ``path`` with the same suffix; puts it in place at the end.

    When the body raises, ``path`` is as it was before and nothing is left beside it. What a process
    that was killed has left beside it goes first. Where ``path`` is a symbolic link, the file that
    it leads to is replaced, and the link stays.
    """
    target = followed(check_writable(path))
    check_writable(target)
    remove_leftovers(target.parent, [target])
    beginning, suffix = _temporary(target)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=beginning, suffix=suffix)
    temporary = Path(name)
    try:
        _lock(handle)
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes files that only the owner can read
        os.replace(temporary, target)
    except OSError as error:  # named after what was to be written, not after where, or not at all
        if error.filename is None or str(error.filename) == name:
            with suppress(AttributeError):  # of PyAV's own errors it cannot be changed
                error.filename = str(target)
        raise
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def replacing_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """As `replacing`, for a folder: what is there gives way as a whole, at the end."""
    target = followed(Path(path))
    with temporary_folder(target) as temporary:
        new, old = temporary / "new", temporary / "old"
        new.mkdir()  # with the permissions of a folder that the user makes
        yield new
        put_folder(new, target, old)


def put_folder(new: Path, target: Path, old: Path) -> None:
    """Puts `new` in the place of `target`, whose folder, if there is one, is then `old` or `new`.

    Where the system can exchange two names, there is no moment without a `target`.
    """
    if target.is_dir() and not _exchange(new, target):
        os.replace(target, old)
    if target.exists():
        return
    try:
        os.replace(new, target)
    except OSError:
        if old.is_dir():
            os.replace(old, target)
        raise


def _exchange(one: Path, other: Path) -> bool:
    """Gives each of two folders the other's name in one step; False where that cannot be done."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # of Linux alone
        return False
    names = os.fsencode(one.absolute()), os.fsencode(other.absolute())
    return call(_HERE, names[0], _HERE, names[1], ctypes.c_uint(_RENAME_EXCHANGE)) == 0


_HERE, _RENAME_EXCHANGE = -100, 2
"""Of Linux: names are relative to the working directory; the flag of ``renameat2``."""


def followed(path: Path) -> Path:
    """Where a symbolic link leads to; any other path as it is."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


@contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target` in which it can be made; gone at the end, whatever happens.

    While this process lives it holds a lock within the folder. What a killed one has left of the
    same name has none, and goes.
    """
    beginning = f".{target.name[:40]}."
    _remove_leftovers(target.parent, {(beginning, "")})
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=beginning))
    handle = -1
    try:
        handle = os.open(temporary / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        _lock(handle)
        yield temporary
    finally:
        if handle >= 0:
            os.close(handle)
        shutil.rmtree(temporary, ignore_errors=True)


_LOCK = "in-use"


def _lock(handle: int) -> bool:
    """Takes the lock of an open file; whether nobody else had it."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # no such locks on this platform
        return False
    except OSError:
        return False
    return True


def _temporary(target: Path) -> tuple[str, str]:
    """How the temporary names of a file begin and end; between them are 8 characters."""
    return f".{target.stem[:40]}.", target.suffix


def remove_leftovers(folder: Path, targets: Iterable[Path]) -> int:
    """Removes what killed processes left of files that they were writing; how many.

    Only what nobody holds the lock of, and what is older than a moment: between making a file and
    locking it there is one.

    Args:
        folder: where to look, once.
        targets: the files that were to be written into it.
    """
    return _remove_leftovers(folder, {_temporary(target) for target in targets})


def _remove_leftovers(folder: Path, names: Collection[tuple[str, str]]) -> int:
    """As `remove_leftovers`, given how the temporary names begin and end."""
    suffixes = {suffix for _, suffix in names}

    def ours(name: str) -> bool:
        for suffix in suffixes:
            core = name.removesuffix(suffix)
            if name.endswith(suffix) and _RANDOM.fullmatch(core[-8:]):
                if (core[:-8], suffix) in names:
                    return True
        return False

    count = 0
    try:
        found = [entry for entry in os.scandir(folder) if ours(entry.name)]
    except OSError:
        return 0
    for entry in found:
        path = Path(entry.path)
        try:
            is_folder = entry.is_dir(follow_symlinks=False)
            lock = path / _LOCK if is_folder else path
            if -_CLOCKS_APART < time.time() - lock.lstat().st_mtime < _MOMENT:
                continue
            handle = os.open(lock, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        except OSError:  # gone, or no folder of ours
            continue
        try:
            if _lock(handle):
                if is_folder:
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
                count += 1
        finally:
            os.close(handle)
    return count


_RANDOM = re.compile(r"[a-z0-9_]{8}")
_MOMENT = 1.0
_CLOCKS_APART = 60.0
"""Seconds. What is dated further in the future was made before a clock went back."""


def cache_folder() -> Path:
    """Where this machine keeps what can be made again: ``$SYNCOS_CACHE``, else ``syncos_jax`` in
    ``$XDG_CACHE_HOME`` or ``~/.cache``. It need not exist yet."""
    own = os.environ.get("SYNCOS_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "syncos_jax"
