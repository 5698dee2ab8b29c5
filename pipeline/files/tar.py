"""Files inside tar archives: listed from the headers, read at random, never unpacked.

A file in an archive has an address that readers can open without an index:
``web/00000.tar#000000012.jpg@10240+48213``, i.e. archive, name, first byte and size.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.files import storage

_BLOCK = 512
_MAX_EXTENDED = 2**20
"""Largest accepted extended header, in bytes; real ones hold a name and a few numbers."""
_START = 512
"""First bytes of a file that its entry shows; they show what it is."""
_END = 2**20
"""Bytes after the end mark that are searched for more data; padding is shorter."""
_ARCHIVE = ".tar#"
_KINDS = {b"1": "a link", b"2": "a link", b"3": "a device", b"4": "a device", b"5": "a folder"}
_KINDS |= {b"6": "a pipe", b"S": "a sparse file"}


class DamagedArchiveError(Exception):
    """An archive cannot be read, or only up to some byte; the text says why."""


@dataclass(frozen=True)
class Member:
    """A file in an archive.

    Attributes:
        archive: Path or s3:// address of the archive.
        name: Name of the file in it; bytes that are not UTF-8 are surrogates.
        offset: Position of the first byte.
        size: Number of bytes.
    """

    archive: str
    name: str
    offset: int
    size: int

    @property
    def uri(self) -> str:
        """The address of the file in manifests."""
        return f"{self.archive}#{self.name}@{self.offset}+{self.size}"


@dataclass(frozen=True)
class Entry:
    """One entry of an archive.

    Attributes:
        member: Its position and size.
        kind: "a file", or another kind that the header claims: "a link", "a folder".
        whole: Whether the archive holds all of its bytes.
        start: Its first bytes, at most 512.
    """

    member: Member
    kind: str
    whole: bool
    start: bytes


def parse(uri: str) -> Member | None:
    """The file in an archive that an address names; None for the address of a plain file."""
    head, _, position = uri.rpartition("@")
    stem, ending, name = head.partition(_ARCHIVE)
    offset, _, size = position.partition("+")
    if not (stem and name and _is_number(offset) and _is_number(size)):
        return None
    return Member(stem + ending[:-1], name, int(offset), int(size))


def without_position(uri: str) -> str:
    """An address without the position, which changes if the archive is downloaded again."""
    return uri if parse(uri) is None else uri.rpartition("@")[0]


def without_positions(uris: pa.ChunkedArray) -> pa.ChunkedArray:
    """Each address without the position: see `without_position`."""
    if not pc.any(pc.match_substring(uris, _ARCHIVE)).as_py():
        return uris
    return pc.replace_substring_regex(uris, r"(?s)(\.tar#.+)@\d{1,15}\+\d{1,15}$", r"\1")


def entries(archive: str) -> Iterator[Entry]:
    """The entries of an archive in order, from the headers.

    Reads ustar, GNU and pax headers. They are untrusted: each must have its checksum, sizes are
    never negative, and the position only grows, so that no archive can block the reader.

    Raises:
        OSError: The archive cannot be opened or read.
        StorageError: The object store does not answer.
        DamagedArchiveError: A header is damaged, the end mark is missing, or data follow it; the
            entries before are good.
    """
    with storage.opened(archive) as file:
        end = file.seek(0, os.SEEK_END)
        position = 0
        long_name: str | None = None
        long_size: int | None = None
        while header := _header(file, position):
            name, size, kind = header
            data = position + _BLOCK
            if kind in (b"x", b"L", b"g", b"K"):
                if size > _MAX_EXTENDED or data + size > end:
                    raise DamagedArchiveError(f"damaged at byte {position:,}")
                content = file.read(size)
                if kind == b"L":
                    long_name = _text(content)
                elif kind == b"x":
                    records = _pax_records(content)
                    long_name = _text(records[b"path"]) if b"path" in records else long_name
                    long_size = _decimal(records[b"size"]) if b"size" in records else None
                    if any(key.startswith(b"GNU.sparse") for key in records):
                        raise DamagedArchiveError(f"sparse file at byte {position:,}")
            else:
                size = size if long_size is None else long_size
                what = _KINDS.get(kind, "a file")
                if kind == b"\0" and (long_name or name).endswith("/"):
                    what = "a folder"  # as archives from before POSIX write it
                if what in ("a link", "a folder"):
                    size = 0  # no data follow, even if the header has a size
                member = Member(archive, long_name or name, data, size)
                start = file.read(min(size, _START))
                yield Entry(member, what, whole=data + size <= end, start=start)
                if data + size > end:
                    return
                long_name = long_size = None
            position = data + -(-size // _BLOCK) * _BLOCK
        _check_end(file, position, end)


def read(member: Member) -> bytes:
    """The bytes of a file in an archive.

    Raises:
        OSError: The archive cannot be read.
        NoPlainFileError: The archive is a folder, a pipe or a device.
        StorageError: The object store does not answer.
        DamagedArchiveError: The archive was replaced, and the file is not there any more.
    """
    start = member.offset - _BLOCK
    piece = b"" if start < 0 else storage.read_range(member.archive, start, _BLOCK + member.size)
    try:
        header = _header(BytesIO(piece), 0)
    except DamagedArchiveError:
        header = None
    # If an extended header holds the size, the plain one has 0.
    if header is None or header[1] not in (member.size, 0):
        raise DamagedArchiveError("no longer at this place of the archive")
    content = piece[_BLOCK:]
    if len(content) < member.size:
        raise DamagedArchiveError("the archive ends in the middle of it")
    return content


def _header(file: BinaryIO, position: int) -> tuple[str, int, bytes] | None:
    """Name, size and type of the header at a position; None at the end of the archive."""
    file.seek(position)
    block = file.read(_BLOCK)
    if not block or not block.strip(b"\0"):
        return None
    if len(block) < _BLOCK:
        raise DamagedArchiveError(f"ends in the middle of the header at byte {position:,}")
    expected = _octal(block[148:156])
    if expected != sum(block[:148]) + 8 * ord(" ") + sum(block[156:]):
        raise DamagedArchiveError(f"no tar header at byte {position:,}")
    size = _number(block[124:136])
    if size is None:
        raise DamagedArchiveError(f"damaged header at byte {position:,}")
    name = block[:100].partition(b"\0")[0]
    if block[257:263] == b"ustar\0" and block[345] != 0:
        name = block[345:500].partition(b"\0")[0] + b"/" + name
    return _text(name), size, block[156:157]


def _check_end(file: BinaryIO, position: int, end: int) -> None:
    """Refuses an archive that was cut between two files, and one that others were appended to."""
    if 0 < end <= position:
        raise DamagedArchiveError("the end mark is missing: it may be cut, and files missing")
    file.seek(position)
    rest = file.read(_END)
    if more := len(rest) - len(rest.lstrip(b"\0")) if rest.strip(b"\0") else 0:
        where = f"byte {position + more:,}"
        raise DamagedArchiveError(
            f"more data after its end mark, at {where}: unpack and pack again"
        )


def _number(field: bytes) -> int | None:
    """A number of a header, octal or (first bit set) base 256; None for anything else."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    return _octal(field)


def _octal(field: bytes) -> int | None:
    digits = field.strip(b" \0")
    if not digits:
        return 0
    return int(digits, 8) if digits.isdigit() and not set(digits) & set(b"89") else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 15


def _decimal(field: bytes) -> int:
    if not field.isdigit() or len(field) > 15:
        raise DamagedArchiveError("a size that is no number")
    return int(field)


def _pax_records(content: bytes) -> dict[bytes, bytes]:
    """The records ``length key=value`` of a pax header."""
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(content):
        digits, _, _ = content[position : position + 12].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        key, equals, value = content[position + len(digits) + 1 : position + length].partition(b"=")
        if not equals or not value.endswith(b"\n") or position + length > len(content):
            raise DamagedArchiveError("a damaged pax header")
        records[key] = value[:-1]
        position += length
    return records


def _text(name: bytes) -> str:
    return name.rstrip(b"\0").decode("utf-8", "surrogateescape")
