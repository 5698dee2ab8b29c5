"""Where files are: on a disk or in an object store. All that differs between the two is here.

A location is a `pathlib.Path`, or for s3:// a `UPath`, which has the same methods and which
annotations call a `Path` too. Joining, listing, asking and deleting (`/`, `glob`, `exists`,
`unlink`) are left to those; reading and writing come through here. An object is written by one
request of all its bytes (or one that completes them), so there is never half of one. Folders of an
object store are not made: they are beginnings of names.
"""

import errno
import os
import posixpath
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from io import BufferedReader
from pathlib import Path, PurePath
from stat import S_ISREG
from tempfile import TemporaryDirectory
from typing import Annotated, Any, cast

import pyarrow as pa
from pydantic import PlainSerializer, PlainValidator

from pipeline.errors import writing
from pipeline.files import s3_objects

_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
_FAULTS = {
    *(errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH),
    *(errno.ETIMEDOUT, errno.EREMOTEIO, errno.ENXIO, errno.ENODEV),
}
"""What a mount says that is gone, of any file on it."""
_STAMPS = s3_objects.Stamps()


class NoPlainFileError(Exception):
    """A folder, a pipe or a device where a file should be; opening a pipe would wait for ever."""


class TooLargeError(Exception):
    """A file has more bytes than its reader takes.

    Attributes:
        size: How many it has.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


def location(text: str | os.PathLike[str]) -> Path:
    """The path that a config names: of this machine, or an address s3://bucket/prefix.

    Raises:
        ValueError: An address of another kind, without a bucket, or s3fs is not installed.
    """
    if isinstance(text, str):
        name = text
    elif isinstance(text, PurePath):
        name = os.fspath(text)
    else:
        return cast(Path, text)  # a UPath
    if not _SCHEME.match(name):
        return Path(name)
    if not is_object(name):
        raise ValueError(f"use a path or an address s3://bucket/prefix, not {name}")
    if not s3_objects.split(name)[0]:
        raise ValueError("name the bucket: s3://bucket/prefix")
    if find_spec("s3fs") is None:
        raise ValueError("install s3fs for s3:// addresses: pip install 'maskmill[s3]'")
    from upath import UPath  # not for those who have no such address

    s3_objects.register()
    return cast(Path, UPath(s3_objects.normalized(name)))


Location = Annotated[Path, PlainValidator(location), PlainSerializer(str)]
"""A config field that holds a path or an s3:// address."""


def is_object(path: Path | str) -> bool:
    """Whether an address leads to an object store."""
    return s3_objects.is_address(str(path))


def below(folder: Path, path: Path | str) -> Path:
    """A path that starts at a folder, unless it is absolute or an address itself."""
    text = str(path)
    if is_object(text) or os.path.isabs(text) or not is_object(folder):
        return location(text if is_object(text) else os.path.join(str(folder), text))
    return location(f"{folder}/{text}")


def normalized(path: str) -> str:
    """An address without `.` and `..`, which never lead out of a bucket; links are not followed."""
    return s3_objects.normalized(path) if is_object(path) else os.path.abspath(path)


def relative(path: Path, folder: Path) -> str:
    """The way from a folder to a file of the same disk or object store."""
    if is_object(path):
        return posixpath.relpath(str(path), str(folder))
    return os.path.relpath(path, folder)


def reached(folder: Path, way: str) -> Path:
    """The file that `relative` told the way to."""
    if is_object(folder):
        return location(f"{folder}/{way}")
    return Path(os.path.normpath(folder / way))


def is_fault(error: OSError) -> bool:
    """Whether an error tells of a vanished disk or mount, not of the file that was asked for."""
    return error.errno in _FAULTS


def stamp(path: str) -> str | None:
    """Size and modification time of a file, of an object size and ETag; None where there is none.

    An object's is that of the last listing of its folder: see `files`.
    """
    if is_object(path):
        return _STAMPS.of(path)
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # ValueError: a name with a NUL byte
        return None
    return f"{found.st_size}:{found.st_mtime_ns}"


def stamps_in(folder: Path) -> dict[str, str]:
    """The files of a folder by name, and what changes when one is written anew; {} without it."""
    if is_object(folder):
        return s3_objects.stamps_in(str(folder))
    try:
        with os.scandir(folder) as entries:
            stats = {entry.name: entry.stat() for entry in entries if entry.is_file()}
    except FileNotFoundError:
        return {}
    return {name: f"{s.st_size}:{s.st_mtime_ns}:{s.st_ino}" for name, s in stats.items()}


def missing(paths: Iterable[Path]) -> set[Path]:
    """Those of many files and folders that are not there; objects are listed, not asked for."""
    wanted = list(paths)
    if not wanted or not is_object(wanted[0]):
        return {path for path in wanted if not os.path.exists(path)}
    common = posixpath.commonpath([str(path.parent) for path in wanted])
    found = {address for address, _, _ in s3_objects.listed(common.replace(":/", "://", 1))}
    found |= {posixpath.dirname(address) for address in found}
    return {path for path in wanted if str(path) not in found}


def forget_stamps(folder: str) -> None:
    """Has the stamps of objects below a folder asked for anew."""
    _STAMPS.forget(folder)


def files(folder: str) -> Iterator[str]:
    """Addresses of all objects below a folder of an object store; notes their stamps."""
    return _STAMPS.files(folder)


def read_bytes(path: Path | str, most: int | None = None) -> bytes:
    """All bytes of a file.

    Args:
        path: Its address.
        most: How many there may be.

    Raises:
        OSError: It is missing, or cannot be read.
        TooLargeError: It has more bytes.
        NoPlainFileError: It is a folder, a pipe or a device.
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
    """A piece of a file; less where it ends before. Raises as `read_bytes`."""
    if is_object(path):
        return s3_objects.piece(path, start, size)
    _plain_size(path)
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(size)


def read_all(paths: Sequence[Path]) -> list[bytes]:
    """The bytes of many files, of an object store several at once. Raises as `read_bytes`."""
    if not paths or not is_object(paths[0]):
        return [path.read_bytes() for path in paths]
    names = [str(path) for path in paths]
    found = s3_objects.client().cat(names, max_concurrency=1, on_error="raise")
    return [found[name.removeprefix("s3://")] for name in names]


def arrow_sources(paths: Sequence[Path]) -> list[Path | pa.BufferReader]:
    """Files as Arrow reads them: paths of those on a disk, the bytes of objects."""
    if not paths or not is_object(paths[0]):
        return [*paths]
    return [pa.BufferReader(content) for content in read_all(paths)]


@contextmanager
def opened(path: str, block: int = 2**20) -> Iterator[BufferedReader]:
    """A file to read from front to back with jumps; of an object a block of bytes a request.

    Raises:
        OSError: It is missing, or cannot be read.
        StorageError: The object store does not answer.
    """
    if is_object(path):
        with BufferedReader(s3_objects.ObjectReader(path), block) as blocks:
            yield cast(BufferedReader, blocks)
        return
    with open(path, "rb") as file:
        yield file


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A local file to fill, which becomes the file when the block ends well; durable, all or none.

    Raises:
        OSError: There is no room, say; names the file. What was there before stays.
        StorageError: The object store does not answer.
    """
    if is_object(path):
        with TemporaryDirectory(prefix="maskmill-") as folder:
            temporary = Path(folder) / "object"
            yield temporary
            s3_objects.client().put_file(str(temporary), str(path))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path):
            yield temporary
            _fsync(temporary)
            temporary.rename(path)
            _fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a whole file, durably, all or none; as `replacing`."""
    if is_object(path):
        s3_objects.client().pipe_file(str(path), content)
        return
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def save_bytes(path: Path, content: bytes) -> None:
    """Writes a file that can be made again: on a disk it may be lost or halved with the power."""
    if not is_object(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return
    write_bytes(path, content)


def temporaries(folder: Path, pattern: str = ".*.tmp") -> list[Path]:
    """What killed writers left in a folder; of an object store nothing."""
    return [] if is_object(folder) else list(folder.glob(pattern))


def remove(path: Path) -> None:
    """Deletes a file, or a folder with all that is in it, if it is there."""
    if is_object(path):
        with suppress(FileNotFoundError):
            s3_objects.client().rm(str(path), recursive=True)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def move(path: Path, target: Path) -> None:
    """Moves a file to another place of the same disk or object store; replaces what is there.

    On a disk it is one rename. In an object store the copy is complete before the file is deleted.
    """
    if is_object(path):
        s3_objects.client().copy(str(path), str(target))
        path.unlink()
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    path.replace(target)
    _fsync(target.parent)
    _fsync(path.parent)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if is_object(path):
        return sum(size for _, size, _ in s3_objects.listed(str(path))) or path.stat().st_size
    found = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.lstat().st_size for file in found if not file.is_dir())


def kvstore(folder: Path) -> dict[str, Any]:
    """Where TensorStore finds a folder: its key-value store, and maybe a `context`."""
    if is_object(folder):
        return s3_objects.kvstore(str(folder))
    return {"driver": "file", "path": str(folder)}


def _read_file(path: Path | str, most: int | None) -> tuple[bytes, int]:
    """A file's bytes, or none where there are more than `most`, and its size."""
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
