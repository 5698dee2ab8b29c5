"""Manifests: folders of Parquet parts that `pandas.read_parquet(folder)` reads as one table.

Parts are described in `pipeline.records.part_file`. A folder of many parts has an index, a copy in
one file (`pipeline.records.part_index`).
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path

import pyarrow as pa

from pipeline.errors import StorageError
from pipeline.files import storage
from pipeline.records import arrays, part_file, snapshot
from pipeline.records.part_index import IndexedPart
from pipeline.records.tables import Table

_WORTH_AN_INDEX = 100
"""Number of parts missing in the index at which it is rewritten; so many are read in 0.1 s."""

_AT_ONCE = 256
"""Parts whose rows are read into one table."""

_FORMER_INDEX = "_index.parquet"


def read(folder: Path, table: Table, columns: Sequence[str] | None = None) -> pa.Table:
    """Reads all rows of a manifest folder, in the order of parts.

    Inside a snapshot each column is read once.

    Args:
        folder: The folder of the parts; one that does not exist is an empty table.
        table: Its kind.
        columns: Only these columns. A large folder is read many times faster without columns of
            lists, which only the parts have.

    Raises:
        StorageError: A part is damaged.
    """
    names = list(table.schema.names if columns is None else columns)
    if (active := snapshot.active()) is None:
        return _read(folder, table, names)
    known = active.columns.setdefault(folder, {})
    if missing := [name for name in names if name not in known]:
        rows = _read(folder, table, missing)
        known |= {name: rows[name] for name in missing}
    schema = pa.schema([table.schema.field(name) for name in names])
    rows = pa.Table.from_arrays([known[name] for name in names], schema=schema)
    return rows.replace_schema_metadata(None)


def _read(folder: Path, table: Table, names: Sequence[str]) -> pa.Table:
    listed = snapshot.listing(folder)
    indexed = listed.indexed if set(names) <= set(_indexed_columns(table)) else frozenset()
    schema = pa.schema([table.schema.field(name) for name in names])
    found: list[pa.Table] = []
    try:
        found += _tables(listed, indexed, schema)
    except part_file.UNREADABLE as error:
        if getattr(error, "errno", None) is not None:
            raise
        # Arrow does not always name the part. A damaged index is not used.
        every = [listed.files[name] for name in listed.stamps]
        for part in every:
            if not part_file.is_readable(part, schema):
                raise part_file.damaged_part(part) from error
        found = [*part_file.read_rows(every, schema)]
    found = found or [arrays.empty(schema)]
    return pa.concat_tables(rows.replace_schema_metadata(None) for rows in found)


def _tables(
    listed: snapshot.Listing, indexed: Collection[str], schema: pa.Schema
) -> Iterator[pa.Table]:
    """Yields the rows of all parts in order, of many parts at a time.

    A table of a few rows is mostly overhead, so those of parts are made one as they are read.

    Args:
        listed: The parts.
        indexed: Those whose rows are taken from the index.
        schema: The columns to read.
    """
    copy = listed.index.read(schema.names).cast(schema) if indexed else None
    for is_indexed, names in groupby(listed.stamps, indexed.__contains__):
        if is_indexed:
            yield from listed.index.slices(copy, names)
            continue
        files = [listed.files[name] for name in names]
        for first in range(0, len(files), _AT_ONCE):
            rows = part_file.read_rows(files[first : first + _AT_ONCE], schema)
            yield pa.concat_tables(rows).combine_chunks()


def read_undamaged(folder: Path, table: Table, columns: Sequence[str]) -> pa.Table:
    """See `read`; without the rows of damaged parts, for what must not wait for their repair."""
    try:
        return read(folder, table, columns)
    except part_file.DamagedPartError:
        schema = pa.schema([table.schema.field(name) for name in columns])
        files = snapshot.listing(folder).files
        parts = [files[name] for name in part_names(folder)]
        whole = [part for part in parts if part_file.is_readable(part, schema)]
        return pa.concat_tables([arrays.empty(schema), *part_file.read_rows(whole, schema)])


def part_names(folder: Path) -> list[str]:
    """File names of a folder's parts, in order; none if the folder does not exist."""
    return [*snapshot.listing(folder).stamps]


def read_records(folder: Path) -> dict[str, part_file.Record]:
    """Reads the records of a folder's parts by file name; damaged parts are left out.

    The records of parts that are in the index have empty `files` and `rows`.
    """
    listed = snapshot.listing(folder)
    known = ((name, listed.index.parts[name]) for name in listed.indexed)
    found = {
        name: part_file.Record(part.facts, {}, part.failed, "", part.num_rows, part.versions)
        for name, part in known
    }
    for name in listed.stamps.keys() - listed.indexed:
        with suppress(StorageError):
            if (record := part_file.read_record(folder / name)) is not None:
                found[name] = record
    return found


def update_index(folder: Path, table: Table) -> None:
    """Rewrites the index of a folder if it lacks so many parts that it is worth it.

    Deletes the index of version 0.1, whose rows other tools would count a second time. Only for the
    holder of the run's lock. Without an index reading is slower.
    """
    if _FORMER_INDEX in snapshot.names_in(folder):
        storage.remove(folder / _FORMER_INDEX)
    listed = snapshot.listing(folder)
    if len(listed.stamps) - len(listed.indexed) < _WORTH_AN_INDEX:
        return
    parts = {name: listed.index.parts[name] for name in listed.indexed}
    with suppress(OSError, StorageError):
        for name in listed.stamps.keys() - listed.indexed:
            if (record := part_file.read_record(folder / name)) is None:
                return
            facts, failed, num_rows = record.facts, record.failed, record.num_rows
            stamp, versions = listed.stamps[name], record.versions
            parts[name] = IndexedPart(stamp, num_rows, facts, failed, versions)
        schema = pa.schema([table.schema.field(name) for name in _indexed_columns(table)])
        rows = _tables(listed, listed.indexed, schema)
        listed.index.write({name: parts[name] for name in listed.stamps}, schema, rows)


def update_indexes(manifests: Path, table: Table) -> None:
    """See `update_index`: of all folders of a table's parts in a run."""
    folder = manifests / table.name
    for each in (folder, *storage.glob(folder, "*=*")):
        update_index(each, table)


def read_part(path: Path, table: Table, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of one part; all columns, or those named.

    Raises:
        StorageError: It is missing or damaged.
    """
    names = table.schema.names if columns is None else columns
    schema = pa.schema([table.schema.field(name) for name in names])
    try:
        (rows,) = part_file.read_rows([snapshot.file_of(path)], schema)
        return rows
    except FileNotFoundError as error:
        fix = "run again: what is missing is made"
        raise StorageError("no such manifest part", where=str(path), fix=fix) from error
    except part_file.UNREADABLE as error:
        if getattr(error, "errno", None) is not None:
            raise
        raise part_file.damaged_part(path) from error


def remove_temporaries(folder: Path) -> None:
    """Deletes what a killed writer left; only for the holder of the run's lock."""
    for path in storage.temporaries(folder, "**/.*.tmp"):
        storage.remove(path)


def _indexed_columns(table: Table) -> list[str]:
    return [field.name for field in table.schema if not pa.types.is_list(field.type)]
