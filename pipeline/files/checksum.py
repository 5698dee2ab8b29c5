"""Checksums of files: of those that outputs depend on, and of outputs themselves."""

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path

from pipeline.files import storage
from pipeline.files.machine_cache import cache_folder

_LARGE = 2**23
"""Bytes from which on reading a file takes longer than it may take a command to answer."""
_SETTLED_NS = 2 * 10**9
"""A file changed a moment ago may change again within a tick of its clock, and look the same."""

Stamp = tuple[str, int, int, int, int, int]
"""What changes with a file: place, size, times of its content and of anything, inode, device."""


def checksum(file: Path) -> str:
    """A file's name and the first 12 hex digits of the SHA-256 of its bytes, see `digest`."""
    return named(file.name, digest(file))


def named(name: str, sha256: str) -> str:
    """What `checksum` calls a file of this name and digest."""
    return f"{name} sha256:{sha256[:12]}"


def digest(file: Path) -> str:
    """The SHA-256 of a file's bytes, 64 hex digits; of a large one remembered as long as it lasts.

    It is what a file is taken for that others are made from. Where it is asked whether a file is
    damaged, `checksum_of_bytes` reads it: damage to a disk changes no time of change.

    Raises:
        OSError: It is missing, or cannot be read.
        StorageError: The object store does not answer.
    """
    if storage.is_object(file):
        return checksum_of_bytes(file)
    stamp, now = _stamp(file), time.time_ns()
    if stamp[1] < _LARGE:
        return checksum_of_bytes(file)
    name = hashlib.sha256(os.fsencode(stamp[0])).hexdigest()
    entry = cache_folder() / "checksums" / f"{name}.json"
    if (known := _remembered(entry, stamp)) is not None:
        return known
    found = checksum_of_bytes(file)
    is_settled = now - max(stamp[2:4]) > _SETTLED_NS
    if is_settled and _stamp(file) == stamp:
        with suppress(OSError):  # a full disk, a home that cannot be written: it is read again
            content = json.dumps({"stamp": stamp, "sha256": found})
            storage.write_bytes(entry, content.encode(), durable=False)
    return found


def checksum_of_bytes(file: Path) -> str:
    """The SHA-256 of a file's bytes, 64 hex digits, read as they are now."""
    with storage.opened(str(file), block=2**24) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _stamp(file: Path) -> Stamp:
    found = os.stat(file)
    # mtime can be set back, and copying tools do; ctime cannot.
    times = found.st_mtime_ns, found.st_ctime_ns
    return (os.path.realpath(file), found.st_size, *times, found.st_ino, found.st_dev)


def _remembered(entry: Path, stamp: Stamp) -> str | None:
    """What was found of a file with this stamp, if anything; whatever else is there is ignored."""
    try:
        values = json.loads(entry.read_bytes())
        known, sha256 = values["stamp"], values["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    is_whole = isinstance(sha256, str) and len(sha256) == 64
    return sha256 if is_whole and known == list(stamp) else None
