"""Locks between processes, also on file systems without any."""

from __future__ import annotations

import errno
from pathlib import Path

from filelock import FileLock, Timeout

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


class NoLocks(OSError):
    """The file system has no locks (some network file systems)."""


def try_lock(path: Path) -> FileLock | None:
    """Locks a file, which is created; None if another process holds the lock.

    Raises:
      NoLocks: the file system has no locks.
      OSError: the file cannot be opened.
    """
    lock = FileLock(path, timeout=0, thread_local=False)
    try:
        lock.acquire()
        return lock
    except NotImplementedError as error:  # filelock's answer to ENOSYS
        raise NoLocks(str(error)) from error
    except Timeout:
        if _has_locks(path):
            return None
        raise NoLocks(errno.ENOLCK, "no locks available", str(path)) from None
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise NoLocks(error.errno, error.strerror, str(path)) from error
        raise


def _has_locks(path: Path) -> bool:
    """Whether locking fails because of another process, which filelock does not tell apart."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _NO_LOCKS
    return True
