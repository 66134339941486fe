"""Locks between processes, also on file systems without any."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


class NoLocks(OSError):
    """The file system has no locks (some network file systems)."""


def try_lock(path: Path) -> Callable[[], None] | None:
    """Locks a file, which is created; returns what releases it, or None if another process has it.

    Raises:
      NoLocks: the file system has no locks. (filelock reports another process then, or falls back
        to a lock that outlives a killed process.)
      OSError: the file cannot be opened.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        lock = FileLock(path, timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            return None
        return lock.release
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
                return None
            if error.errno in _NO_LOCKS:
                raise NoLocks(error.errno, error.strerror, str(path)) from error
            raise
        if _is_at(handle, path):
            return lambda: os.close(handle)
        os.close(handle)  # its last owner deleted the file before it was locked here


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
