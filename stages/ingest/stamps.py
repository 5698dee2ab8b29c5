"""Stamps of files: enough to see that one has changed without reading it."""

import os


def stamp(path: str | None) -> str | None:
    """Size and modification time of a file; None without one."""
    if path is None:
        return None
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # ValueError: a name with a NUL byte
        return None
    return f"{found.st_size}:{found.st_mtime_ns}"
