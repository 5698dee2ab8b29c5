"""Manifests: folders of Parquet parts that `pandas.read_parquet(folder)` reads as one table.

A part is written last, durably and all or none (`pipeline.files.storage`), so it is the completion
record of its shard: rows exist exactly when their masks do. Its key-value metadata holds what the
shard was made from. Of many parts there is a copy in one file (`pipeline.records.part_index`).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.config_section import Facts
from pipeline.errors import StorageError
from pipeline.files import storage
from pipeline.files.checksum import checksum_of_bytes
from pipeline.records import arrays
from pipeline.records.part_index import INDEX, IndexedPart, PartIndex, read_index
from pipeline.records.tables import Table

_METADATA_KEY, _CHECKSUM_KEY = b"maskmill", b"maskmill.checksum"
"""What a part says of itself, as JSON, and the digest of that: Parquet's own checksums are of pages
alone."""
_RECORDED_LIBRARIES = ("maskmill", "numpy", "pyarrow", "zarr", "torch")
_UNREADABLE = (pa.ArrowException, OSError, KeyError, TypeError, ValueError)
"""What reading a damaged file may raise."""
_WORTH_AN_INDEX = 100
"""Parts that are not in the index before it is written anew; as many are read in 0.1 s."""


class DamagedPartError(StorageError):
    """A part cannot be read; `where` is its path."""


@dataclass(frozen=True)
class Record:
    """What a part's key-value metadata says of it.

    Attributes:
        facts: What it was made from.
        files: SHA-256 of the files that its rows describe, by their path from the part's folder.
        failed: Images whose files could not be read although ingest could: worth another try.
        rows: Digest of its rows.
        num_rows: How many there are.
    """

    facts: Facts
    files: Mapping[str, str]
    failed: int
    rows: str
    num_rows: int


_Listing = tuple[dict[str, str], PartIndex, Set[str]]
"""Stamps of a folder's parts by name, in order; its index; and the parts that are in it so."""
_listings: ContextVar[dict[Path, _Listing] | None] = ContextVar("listings", default=None)


def digest(value: object) -> str:
    """16 hex digits of the SHA-256 of a plain value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def part_name(shard: int) -> str:
    """The file name of a shard's part."""
    return f"part-{shard:05d}.parquet"


def write_part(
    path: Path,
    rows: pa.Table,
    facts: Facts,
    config: Mapping[str, Any],
    *,
    files: Iterable[Path] = (),
    failed: int = 0,
) -> None:
    """Commits a part: the last thing that happens to a shard.

    Args:
        path: ``.../part-<key>.parquet``.
        rows: Table of one of the schemas above.
        facts: What the shard was made from; its digest is the shard's fingerprint.
        config: The resolved config section, for people.
        files: Finished files that the rows describe; their checksums are recorded.
        failed: Number of images that another run should try again.

    Raises:
        OSError: There is no room, say; names the part. What was there before stays.
    """
    record = {
        "fingerprint": digest(facts),
        "facts": facts,
        "files": {storage.relative(file, path.parent): checksum_of_bytes(file) for file in files},
        "failed": failed,
        "rows": digest(rows.to_pylist()),
        "num_rows": rows.num_rows,
        "config": dict(config),
        "versions": _versions(),
    }
    text = json.dumps(record)
    own = {_METADATA_KEY: text, _CHECKSUM_KEY: digest(text)}
    metadata = {**(rows.schema.metadata or {}), **own}
    table = rows.replace_schema_metadata(metadata)
    with storage.replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def read_record(path: Path) -> Record | None:
    """What a committed part says of itself; None where there is no part.

    Raises:
        StorageError: The file is no part of ours, or is damaged.
    """
    try:
        footer = pq.read_metadata(storage.arrow_sources([path])[0])
        text = (footer.metadata or {})[_METADATA_KEY].decode()
        if digest(text) != footer.metadata[_CHECKSUM_KEY].decode():
            raise ValueError("the metadata is not what was written")
        record = json.loads(text)
        return Record(
            facts=record["facts"],
            files=record["files"],
            failed=record["failed"],
            rows=record["rows"],
            num_rows=record["num_rows"],
        )
    except FileNotFoundError:
        return None
    except _UNREADABLE as error:
        if getattr(error, "errno", None) is not None:
            raise  # what the operating system refuses is no damage
        raise _damaged(path) from error


def read_facts(path: Path) -> Facts | None:
    """What a committed part was made from; None where there is no part.

    Raises:
        StorageError: The file is no part of ours, or is damaged.
    """
    record = read_record(path)
    return None if record is None else record.facts


def damage(path: Path, record: Record) -> list[str]:
    """What is wrong with a part or with the files that its rows describe; reads all of them."""
    found = []
    try:
        (source,) = storage.arrow_sources([path])
        rows = pq.read_table(source, partitioning=None, page_checksum_verification=True)
        if digest(rows.to_pylist()) != record.rows:
            found.append(f"{path}: damaged manifest part")
    except (pa.ArrowException, OSError, ValueError) as error:
        if getattr(error, "errno", None) is not None:
            raise
        found.append(f"{path}: damaged manifest part")
    for name, expected in record.files.items():
        file = storage.from_relative(path.parent, name)
        try:
            if checksum_of_bytes(file) != expected:
                found.append(f"{file}: not the bytes that were written, its checksum differs")
        except FileNotFoundError:
            found.append(f"{file}: gone")
    return found


def read(folder: Path, table: Table, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of a manifest folder, in the order of parts.

    Args:
        folder: The folder that the parts lie in; one that does not exist is an empty table.
        table: Its kind.
        columns: Only these columns. Without columns of lists, which are in the parts alone, a large
            folder is read many times faster.

    Raises:
        StorageError: A part is damaged.
    """
    stamps, index, known = _listed(folder)
    names = list(table.schema.names if columns is None else columns)
    if not set(names) <= set(_indexed_columns(table)):
        known = set()
    schema = pa.schema([table.schema.field(name) for name in names])
    found: list[pa.Table] = []
    try:
        copy = index.read(names).cast(schema) if known else None
        for is_known, parts in groupby(stamps, known.__contains__):
            if is_known:
                found += index.slices(copy, parts)
            else:
                found += _read_parts([folder / part for part in parts], schema)
    except _UNREADABLE as error:
        if getattr(error, "errno", None) is not None:
            raise
        # Arrow does not always say which one it is; a damaged index is as good as none.
        every = [folder / name for name in stamps]
        for part in every:
            if not _is_readable(part, schema):
                raise _damaged(part) from error
        found = [*_read_parts(every, schema)]
    found = found or [arrays.empty(schema)]
    return pa.concat_tables(rows.replace_schema_metadata(None) for rows in found)


@contextmanager
def unchanging() -> Iterator[None]:
    """Lists a folder once, however often it is read in the block, which writes and deletes none."""
    token = _listings.set({})
    try:
        yield
    finally:
        _listings.reset(token)


def part_names(folder: Path) -> list[str]:
    """File names of a folder's parts, in order; none where there is no folder."""
    stamps, _, _ = _listed(folder)
    return [*stamps]


def read_records(folder: Path) -> dict[str, Record]:
    """What the parts of a folder say of themselves, by file name; damaged ones are left out.

    Of those that are in the index, `files` and `rows` are empty.
    """
    stamps, index, fresh = _listed(folder)
    known = ((name, index.parts[name]) for name in fresh)
    found = {name: Record(part.facts, {}, part.failed, "", part.num_rows) for name, part in known}
    for name in stamps.keys() - fresh:
        with suppress(StorageError):
            if (record := read_record(folder / name)) is not None:
                found[name] = record
    return found


def update_index(folder: Path, table: Table) -> None:
    """Writes the index of a folder anew, where it lacks so many parts that it is worth it.

    For the holder of the workspace's lock. Where it cannot be written, reading is slower.
    """
    stamps, index, fresh = _listed(folder)
    if len(stamps) - len(fresh) < _WORTH_AN_INDEX:
        return
    parts = {name: index.parts[name] for name in fresh}
    with suppress(OSError, StorageError):
        for name in stamps.keys() - fresh:
            if (record := read_record(folder / name)) is None:
                return
            facts, failed, num_rows = record.facts, record.failed, record.num_rows
            parts[name] = IndexedPart(stamps[name], num_rows, facts, failed)
        rows = read(folder, table, _indexed_columns(table))
        index.write({name: parts[name] for name in stamps}, rows)


def read_part(path: Path, table: Table, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of one part; all columns, or those named.

    Raises:
        StorageError: It is missing or damaged.
    """
    names = table.schema.names if columns is None else columns
    schema = pa.schema([table.schema.field(name) for name in names])
    try:
        (rows,) = _read_parts([path], schema)
        return rows
    except FileNotFoundError as error:
        fix = "run again: what is missing is made"
        raise StorageError("no such manifest part", where=str(path), fix=fix) from error
    except _UNREADABLE as error:
        if getattr(error, "errno", None) is not None:
            raise
        raise _damaged(path) from error


def remove_temporaries(folder: Path) -> None:
    """Deletes what a killed writer left; only for the holder of the workspace's lock."""
    for path in storage.temporaries(folder, "**/.*.tmp"):
        path.unlink(missing_ok=True)


@cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in _RECORDED_LIBRARIES}


def _listed(folder: Path) -> _Listing:
    known = _listings.get()
    if known is None:
        return _list(folder)
    if folder not in known:
        known[folder] = _list(folder)
    return known[folder]


def _list(folder: Path) -> _Listing:
    listed = storage.stamps_in(folder)
    stamps = {name: listed[name] for name in sorted(listed) if fnmatchcase(name, "part-*.parquet")}
    index = read_index(folder, listed.get(INDEX))
    known = {name for name, part in index.parts.items() if stamps.get(name) == part.stamp}
    return stamps, index, known


def _indexed_columns(table: Table) -> list[str]:
    return [field.name for field in table.schema if not pa.types.is_list(field.type)]


def _read_parts(parts: Sequence[Path], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of each part; a column that was not there yet when it was written is null."""
    for source in storage.arrow_sources(parts):
        with pq.ParquetFile(source, page_checksum_verification=True) as file:
            there = {*file.schema_arrow.names}
            rows = file.read([name for name in schema.names if name in there], use_threads=False)
        for position, field in enumerate(schema):
            if field.name not in there:
                rows = rows.add_column(position, field, pa.nulls(rows.num_rows, field.type))
        yield rows.cast(schema).replace_schema_metadata(None)


def _is_readable(part: Path, schema: pa.Schema) -> bool:
    try:
        [*_read_parts([part], schema)]
    except _UNREADABLE:
        return False
    return True


def _damaged(part: Path) -> DamagedPartError:
    fix = "do it again with: maskmill verify --rerun"
    return DamagedPartError("damaged manifest part", where=str(part), fix=fix)
