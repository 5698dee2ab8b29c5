"""Checksums of files: of those that outputs depend on, and of outputs themselves."""

import hashlib
from pathlib import Path

from pipeline import storage


def checksum(file: Path) -> str:
    """A file's name and the first 12 hex digits of the SHA-256 of its bytes."""
    return f"{file.name} sha256:{checksum_of_bytes(file)[:12]}"


def checksum_of_bytes(file: Path) -> str:
    """The SHA-256 of a file's bytes, 64 hex digits."""
    with storage.opened(str(file), block=2**24) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
