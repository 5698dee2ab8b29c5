"""Locks on files, which the kernel frees with the process that holds them."""

import errno
import fcntl
from pathlib import Path
from typing import IO

from pipeline.errors import StorageError

_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}
"""Errors of a disk that has no locks, as some network mounts."""


def lock(file: IO[str] | int, path: Path, fix: str, *, wait: bool) -> None:
    """Locks an open file until it is closed.

    Args:
        file: The file, open for writing; or the descriptor of a folder.
        path: Its path.
        fix: What to do on a disk without locks.
        wait: Whether to wait for another process that holds the lock.

    Raises:
        BlockingIOError: Another process holds the lock, and `wait` is false.
        StorageError: The disk has no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        what = f"this disk has no file locks ({error.strerror}), which keep two commands apart"
        raise StorageError(what, where=str(path), fix=fix) from error
