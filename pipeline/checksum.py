"""Checksums of files that outputs depend on."""

import hashlib
from pathlib import Path


def checksum(file: Path) -> str:
    """A file's name and the first 12 hex digits of the SHA-256 of its bytes."""
    with file.open("rb") as stream:
        return f"{file.name} sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()[:12]}"
