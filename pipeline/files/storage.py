"""Files on a disk or in an object store. All that differs between the two is here.

A location is a `pathlib.Path`, or for s3:// a `UPath`, which has the same methods and which
annotations call a `Path` too. Joining, asking and deleting (`/`, `exists`, `unlink`) are left to
those; reading, writing and looking for names (`glob`) go through this module. One request writes a
whole object (or completes it), so no object is ever half written. Folders of an object store are
not created: they are only prefixes of names.
"""

import errno
import os
import posixpath
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from io import BufferedReader
from pathlib import Path
from stat import S_ISREG
from tempfile import TemporaryDirectory
from typing import Any, cast

import pyarrow as pa

from pipeline.errors import writing
from pipeline.files import locations, s3_objects, s3_writes

_FAULTS = {
    *(errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH),
    *(errno.ETIMEDOUT, errno.EREMOTEIO, errno.ENXIO, errno.ENODEV),
}
"""Errors of a mount that is gone, for any file on it."""
_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
"""Errors that say that there is no such file."""


class NoPlainFileError(Exception):
    """A folder, a pipe or a device where a file should be; opening a pipe would block forever."""


class TooLargeError(Exception):
    """A file has more bytes than its reader accepts.

    Attributes:
        size: Bytes of the file.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


def is_object(path: Path | str) -> bool:
    """Whether an address leads to an object store."""
    return s3_objects.is_address(str(path))


def normalized(path: str) -> str:
    """An address without `.` and `..`, which never lead out of a bucket; links are not followed."""
    return s3_objects.normalized(path) if is_object(path) else os.path.abspath(path)


def relative(path: Path, folder: Path) -> str:
    """The relative path from a folder to a file of the same disk or object store."""
    if is_object(path):
        return posixpath.relpath(str(path), str(folder))
    return os.path.relpath(path, folder)


def from_relative(folder: Path, path: str) -> Path:
    """The file that `relative` gave this path for."""
    if is_object(folder):
        return locations.location(f"{folder}/{path}")
    return Path(os.path.normpath(folder / path))


def is_fault(error: OSError) -> bool:
    """Whether an error means a lost disk or mount, and says nothing about the file itself."""
    return error.errno in _FAULTS


def is_missing(error: OSError) -> bool:
    """Whether an error says that there is no such file; any other may pass."""
    return error.errno in _MISSING


def exists(path: Path) -> bool:
    """Whether there is such a file or folder.

    Python's own answer to a disk that fails, or to a folder that must not be entered, depends on
    its version; "no" would mean that finished work is gone.

    Raises:
        OSError: That cannot be told.
    """
    if is_object(path):
        return path.exists()
    try:
        os.stat(path)
    except OSError as error:
        if is_missing(error):
            return False
        raise
    except ValueError:  # no name of a file
        return False
    return True


def read_bytes(path: Path | str, most: int | None = None) -> bytes:
    """All bytes of a file.

    Args:
        path: Path or address of the file.
        most: The largest accepted number of bytes.

    Raises:
        OSError: The file is missing, or cannot be read.
        TooLargeError: The file has more bytes.
        NoPlainFileError: The path is a folder, a pipe or a device.
        StorageError: The object store does not answer.
    """
    if is_object(path):
        content, size = s3_objects.read(str(path), most)
    else:
        content, size = _read_file(path, most)
    if most is not None and size > most:
        raise TooLargeError(size)
    return content


def read_range(path: str, start: int, size: int) -> bytes:
    """A range of bytes, shorter at the end of the file. Raises as `read_bytes`."""
    if is_object(path):
        return s3_objects.read_range(path, start, size)
    _plain_size(path)
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(size)


def read_all(paths: Sequence[Path]) -> list[bytes]:
    """The bytes of many files; objects are read in parallel. Raises as `read_bytes`."""
    if not paths or not is_object(paths[0]):
        return [path.read_bytes() for path in paths]
    names = [str(path) for path in paths]
    found = s3_objects.client().cat(names, max_concurrency=1, on_error="raise")
    return [found[name.removeprefix("s3://")] for name in names]


def arrow_sources(paths: Sequence[Path]) -> list[Path | pa.BufferReader]:
    """Files in a form that Arrow reads: paths on a disk, the bytes of objects."""
    if not paths or not is_object(paths[0]):
        return [*paths]
    return [pa.BufferReader(content) for content in read_all(paths)]


@contextmanager
def opened(path: str, block: int = 2**20) -> Iterator[BufferedReader]:
    """A file to read from front to back with jumps; each request reads a block of an object.

    Raises:
        OSError: The file is missing, or cannot be read.
        StorageError: The object store does not answer.
    """
    if is_object(path):
        with BufferedReader(s3_objects.ObjectReader(path), block) as blocks:
            yield cast(BufferedReader, blocks)
        return
    with open(path, "rb") as file:
        yield file


@contextmanager
def replacing(path: Path, folder: Path | None = None, *, durable: bool = True) -> Iterator[Path]:
    """A temporary file to fill, which replaces the file when the block succeeds.

    Readers see the old file or the whole new one, never a part of it.

    Args:
        path: Path or address of the file; missing folders are created.
        folder: The folder of the temporary file, on the same disk; default: that of the file.
        durable: Whether the new file survives a power failure; needless for files that can be
            computed again.

    Raises:
        OSError: There is no room, say; names the file. The old file stays.
        StorageError: The object store does not answer.
    """
    if is_object(path):
        with TemporaryDirectory(prefix="maskmill-") as local:
            temporary = Path(local) / "object"
            yield temporary
            s3_writes.put_file(str(path), temporary)
        return
    folder = path.parent if folder is None else folder
    for each in (path.parent, folder):
        each.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp"
    try:
        with writing(path):
            yield temporary
            move(temporary, path, durable=durable)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Writes a whole file; see `replacing`."""
    if is_object(path):
        s3_writes.put(str(path), content)
        return
    with replacing(path, durable=durable) as temporary:
        temporary.write_bytes(content)


def glob(folder: Path, pattern: str) -> list[Path]:
    """The files and folders below a folder that fit a pattern, sorted; none for no folder.

    Only `*` and `**` are special, and only in the pattern: UPath takes a `[` in the folder's own
    name for one.

    Args:
        folder: The folder.
        pattern: Steps joined by `/`, each a shell pattern or `**` for any number of folders.
    """
    if not is_object(folder):
        return sorted(folder.glob(pattern))
    step, _, rest = pattern.partition("/")
    try:
        children = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    if step == "**":
        deeper = [found for child in children if child.is_dir() for found in glob(child, pattern)]
        return sorted({*glob(folder, rest), *deeper})
    fitting = [child for child in children if fnmatchcase(child.name, step)]
    return [found for child in fitting for found in glob(child, rest)] if rest else fitting


def temporaries(folder: Path, pattern: str = ".*.tmp") -> list[Path]:
    """Temporary files that killed writers left in a folder; an object store has none."""
    return [] if is_object(folder) else list(folder.glob(pattern))


def remove(path: Path) -> None:
    """Deletes a file, or a folder with everything in it, if there is one."""
    if is_object(path):
        with suppress(FileNotFoundError):
            s3_writes.guarded(lambda client: client.rm(str(path), recursive=True))
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def move(path: Path, target: Path, *, durable: bool = True) -> None:
    """Moves a finished file to another place of the same disk or object store.

    What is there is replaced. On a disk it is one rename. In an object store the copy is complete
    before the file is deleted.

    Args:
        path: The file.
        target: Its new place.
        durable: Whether the move survives a power failure; see `replacing`.
    """
    if is_object(path):
        s3_writes.guarded(lambda client: client.cp_file(str(path), str(target)))
        s3_writes.guarded(lambda client: client.rm_file(str(path)))
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if durable:
        _fsync(path)
    path.replace(target)
    for folder in dict.fromkeys((target.parent, path.parent)) if durable else ():
        _fsync(folder)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if is_object(path):
        return sum(size for _, size, _ in s3_objects.listed(str(path))) or path.stat().st_size
    found = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.lstat().st_size for file in found if not file.is_dir())


def kvstore(folder: Path) -> dict[str, Any]:
    """TensorStore's spec of a folder: a key-value store, and for objects a `context`."""
    if is_object(folder):
        return s3_objects.kvstore(str(folder))
    # It refuses `..`, which only the real path can lose where links are involved.
    return {"driver": "file", "path": os.path.realpath(folder)}


def _read_file(path: Path | str, most: int | None) -> tuple[bytes, int]:
    """The bytes of a file, or none if there are more than `most`, and its size."""
    size = _plain_size(path)
    if most is not None and size > most:
        return b"", size
    with open(path, "rb") as file:
        return file.read(), size


def _plain_size(path: Path | str) -> int:
    found = os.stat(path)
    if not S_ISREG(found.st_mode):
        raise NoPlainFileError("not a plain file")
    return found.st_size


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
