"""Stamps of files and objects, which change with their content, and listings of many at once."""

import os
import posixpath
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.files import s3_objects
from pipeline.files.storage import exists, is_missing, is_object

_STAMPS = s3_objects.Stamps()


def stamp(path: str) -> str | None:
    """Size, mtime, ctime and inode of a file, or size and ETag of an object.

    mtime can be set back, and copying tools do; ctime cannot. None for a missing file. A file that
    cannot be asked now, e.g. for lack of permission, has a stamp that fits no other. An object's
    stamp is from the last listing of its folder: see `files`.
    """
    if is_object(path):
        return _STAMPS.of(path)
    try:
        found = os.stat(path)
    except ValueError:  # a name with a NUL byte
        return None
    except OSError as error:
        return None if is_missing(error) else f"{error.strerror}: {path}"
    return f"{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}:{found.st_ino}"


def size_in(stamp: str) -> int | None:
    """The number of bytes in a stamp; None in that of a file that could not be asked."""
    size, _, _ = stamp.partition(":")
    return int(size) if size.isdecimal() else None


def stamps_in(folder: Path) -> dict[str, str]:
    """A stamp for each file of a folder, by name, which changes with the file; {} for no folder."""
    if is_object(folder):
        return s3_objects.stamps_in(str(folder))
    try:
        with os.scandir(folder) as entries:
            stats = {entry.name: entry.stat() for entry in entries if entry.is_file()}
    except FileNotFoundError:
        return {}
    return {name: f"{s.st_size}:{s.st_mtime_ns}:{s.st_ino}" for name, s in stats.items()}


def missing(paths: Iterable[Path]) -> set[Path]:
    """The missing ones of many files and folders; a few listings find this out for objects."""
    wanted = list(paths)
    if not wanted or not is_object(wanted[0]):
        return {path for path in wanted if not exists(path)}
    common = posixpath.commonpath([str(path.parent) for path in wanted])
    found = {address for address, _, _ in s3_objects.listed(common.replace(":/", "://", 1))}
    found |= {posixpath.dirname(address) for address in found}
    return {path for path in wanted if str(path) not in found}


def forget_stamps(folder: str) -> None:
    """Drops the cached stamps of objects below a folder."""
    _STAMPS.forget(folder)


def files(folder: str) -> Iterator[str]:
    """Addresses of all objects below a folder of an object store; caches their stamps."""
    return _STAMPS.files(folder)
