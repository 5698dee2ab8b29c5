"""Writes of objects, which a process that has lost the lock of its run does not make any more.

A process may be paused for any time (SIGSTOP, a laptop's lid, a virtual machine that moves), and
another one takes its lock over. So each write first looks at the age of the lock. A write that is
already on its way is conditional: it fails if the object is not the one that was there when the
lock was still held.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.files import s3_lease, s3_objects

_REFUSALS = ("PreconditionFailed", "ConditionalRequestConflict", "pre-conditions", "412", "409")
"""What the store's answers to a condition that does not hold say."""
_LARGE = 64 * 2**20
"""Bytes of a file that is sent in several requests, of which only the first is guarded."""


def put(address: str, content: bytes) -> None:
    """Writes a whole object.

    Raises:
        StorageError: The lock of this process's run is lost, or the store does not answer.
    """
    if not s3_lease.is_any_held():
        s3_objects.client().pipe_file(address, content)
        return
    bucket, key = s3_objects.split(address)
    condition = _condition(address)
    s3_lease.check_held()
    try:
        s3_objects.client().call_s3("put_object", Bucket=bucket, Key=key, Body=content, **condition)
    except OSError as error:
        if not _is_refused(error):
            raise
        # An answer may have been lost, and the repeated request found its own write.
        if s3_objects.read(address, None)[0] == content:
            return
        raise s3_lease.lost(address) from error


def put_file(address: str, path: Path) -> None:
    """Writes a whole object from a file; see `put`."""
    if path.stat().st_size <= _LARGE:
        put(address, path.read_bytes())
        return
    guarded(lambda client: client.put_file(str(path), address))


def guarded(write: Callable[[Any], object]) -> None:
    """Makes another change by the client, if the lock of this process's run is held."""
    s3_lease.check_held()
    write(s3_objects.client())


def _condition(address: str) -> dict[str, str]:
    """The condition that an object is still the one that is there now."""
    try:
        return {"IfMatch": str(s3_objects.client().info(address)["ETag"])}
    except FileNotFoundError:
        return {"IfNoneMatch": "*"}


def _is_refused(error: OSError) -> bool:
    """Whether the store refused a condition."""
    texts = (str(error), str(error.__cause__))
    return any(code in text for text in texts for code in _REFUSALS)
