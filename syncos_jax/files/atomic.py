"""Writing results: checked before the work, and in place only once complete."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{target.name[:40]}."):
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

    When the body raises, ``path`` is as it was before and nothing is left beside it.
    """
    target = check_writable(path)
    handle, name = tempfile.mkstemp(
        dir=target.parent, prefix=f".{target.stem[:40]}.", suffix=target.suffix
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes files that only the owner can read
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """As `replacing`, for a folder: what is there gives way as a whole, at the end."""
    target = Path(path)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name[:40]}."))
    new, old = temporary / "new", temporary / "old"
    new.mkdir()  # with the permissions of a folder that the user makes
    try:
        yield new
        if target.is_dir():
            os.replace(target, old)
        os.replace(new, target)
    except BaseException:
        if old.is_dir() and not target.exists():
            os.replace(old, target)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def cache_folder() -> Path:
    """Where this machine keeps what can be made again: ``$SYNCOS_CACHE``, else ``syncos_jax`` in
    ``$XDG_CACHE_HOME`` or ``~/.cache``. It need not exist yet."""
    own = os.environ.get("SYNCOS_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "syncos_jax"
