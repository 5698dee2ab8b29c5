"""The lock of a run: one process writes at a time. The kernel frees the lock of a dead process."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from pipeline.errors import StorageError
from pipeline.files import file_lock, storage

_FIX = "set `workspace` to a local disk, or mount this one with locks (NFS: `local_lock=all`)"


@contextmanager
def locked(manifests: Path) -> Iterator[None]:
    """Holds a run's lock: the file `.lock` in its manifests folder.

    Raises:
        StorageError: Another process holds the lock; names that process. Or the disk has no locks.
            Or, in an object store, the lock was taken over: see `pipeline.files.s3_lease`.
    """
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    owner = f"process {os.getpid()} on {platform.node()}, started {started}"
    if storage.is_object(manifests):
        from pipeline.files.s3_lease import leased

        with leased(str(manifests / ".lock"), owner):
            yield
        return
    manifests.mkdir(parents=True, exist_ok=True)
    path = manifests / ".lock"
    with path.open("a+") as handle:
        try:
            file_lock.lock(handle, path, _FIX, wait=False)
        except BlockingIOError as error:
            handle.seek(0)
            what = f"another command is working on this run: {handle.read().strip()}"
            raise StorageError(what, where=str(manifests), fix="wait until it ends") from error
        handle.truncate(0)
        handle.write(f"{owner}\n")
        handle.flush()
        yield
