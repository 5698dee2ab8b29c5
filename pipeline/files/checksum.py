"""Checksums of input files and of outputs."""

import hashlib
import json
import os
import time
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

from pipeline.files import storage
from pipeline.files.machine_cache import cache_folder

_LARGE = 2**23
"""Bytes of a file that takes too long to read for a quick command such as `status`."""
_SETTLED_NS = 2 * 10**9
"""Minimum age of a change: a newer file may change again within a tick of its clock, unnoticed."""

Stamp = tuple[str, int, int, int, int, int]
"""Changes with a file: its real path, size, mtime, ctime, inode and device."""


def checksum(file: Path) -> str:
    """A file's name and the first 12 hex digits of the SHA-256 of its bytes, see `digest`."""
    return named(file.name, digest(file))


def named(name: str, sha256: str) -> str:
    """The `checksum` of a file with this name and digest."""
    return f"{name} sha256:{sha256[:12]}"


def digest(file: Path) -> str:
    """The SHA-256 of a file's bytes, 64 hex digits; cached for large files.

    The cache lasts until the stamp of the file changes. To look for damage use `checksum_of_bytes`,
    as a damaged disk does not change the stamp.

    Raises:
        OSError: The file is missing, or cannot be read.
        StorageError: The object store does not answer.
    """
    if storage.is_object(file):
        return checksum_of_bytes(file)
    stamp, now = _stamp(file), time.time_ns()
    if stamp[1] < _LARGE:
        return checksum_of_bytes(file)
    name = hashlib.sha256(os.fsencode(stamp[0])).hexdigest()
    entry = cache_folder() / "checksums" / f"{name}.json"
    if (known := _cached(entry, stamp)) is not None:
        return known
    found = checksum_of_bytes(file)
    is_settled = now - max(stamp[2:4]) > _SETTLED_NS
    if is_settled and _stamp(file) == stamp:
        # A full disk or a read-only home: the next call reads the file again.
        with suppress(OSError):
            content = json.dumps({"stamp": stamp, "sha256": found})
            storage.write_bytes(entry, content.encode(), durable=False)
    return found


def checksum_of_bytes(file: Path) -> str:
    """The SHA-256 of a file's bytes, 64 hex digits, without the cache."""
    with storage.opened(str(file), block=2**24) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def archive_is_whole(content: bytes) -> bool:
    """Whether the bytes are a zip archive, as torch saves, whose own checksums are right."""
    try:
        with ZipFile(BytesIO(content)) as archive:
            return archive.testzip() is None
    except MemoryError:
        raise
    except Exception:  # damaged bytes of an archive can fail in any way
        return False


def _stamp(file: Path) -> Stamp:
    found = os.stat(file)
    # mtime can be set back, and copying tools do; ctime cannot.
    times = found.st_mtime_ns, found.st_ctime_ns
    return (os.path.realpath(file), found.st_size, *times, found.st_ino, found.st_dev)


def _cached(entry: Path, stamp: Stamp) -> str | None:
    """The cached digest of a file with this stamp; None for a missing or damaged entry."""
    try:
        values = json.loads(entry.read_bytes())
        known, sha256 = values["stamp"], values["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    is_whole = isinstance(sha256, str) and len(sha256) == 64
    return sha256 if is_whole and known == list(stamp) else None
