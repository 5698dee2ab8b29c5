"""One part of a manifest: a Parquet file with rows, and in its metadata the record of its making.

A part is written last, durably and all or none (`pipeline.files.storage`), so it is the completion
record of its unit: rows exist exactly when their masks do.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.config_section import Facts
from pipeline.errors import StorageError
from pipeline.files import storage
from pipeline.files.checksum import checksum_of_bytes
from pipeline.records import snapshot
from pipeline.records.hidden_files import file_at, place_of, temporary_folder
from pipeline.redaction import without_secrets

IMAGES_FACT = "inputs.images"
"""Key of the fact that is a digest of a unit's images; see `Stage.image_changes`."""
_METADATA_KEY, _CHECKSUM_KEY = b"maskmill", b"maskmill.checksum"
"""Metadata keys of a part's record and its digest: Parquet's checksums cover only pages."""
_RECORDED_LIBRARIES = ("maskmill", "numpy", "pyarrow", "zarr", "torch")
"""Libraries whose versions every part records, for people."""
UNREADABLE = (pa.ArrowException, OSError, KeyError, TypeError, ValueError)
"""Exceptions that reading a damaged file may raise."""


class DamagedPartError(StorageError):
    """A part cannot be read; `where` is its path."""


@dataclass(frozen=True)
class Record:
    """The record in the key-value metadata of a part.

    Attributes:
        facts: Everything that its rows depend on.
        files: SHA-256 of the files that its rows describe, by their path from the part's folder.
        failed: Images whose files could not be read although ingest could: worth another try.
        rows: Digest of its rows.
        num_rows: How many there are.
        versions: Versions of the libraries and models that made it, by name.
    """

    facts: Facts
    files: Mapping[str, str]
    failed: int
    rows: str
    num_rows: int
    versions: Mapping[str, str] = field(default_factory=dict)


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
    versions: Mapping[str, str] | None = None,
) -> None:
    """Commits a part: the last thing that happens to a unit of work.

    Args:
        path: ``.../part-<key>.parquet``.
        rows: Rows with the schema of one of `pipeline.records.tables`.
        facts: Everything that the rows depend on; their digest is the fingerprint.
        config: The resolved config section, for people.
        files: Finished files that the rows describe; their checksums are recorded.
        failed: Number of images that another run should try again.
        versions: Versions of what made the rows, see `installed`; some are always recorded.

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
        "versions": {**installed(_RECORDED_LIBRARIES), **(versions or {})},
        "place": place_of(path),
    }
    _write(path, rows, record)


def replace_rows(path: Path, rows: pa.Table, facts: Facts) -> None:
    """Writes a part again with other rows and facts; what else its record says stays.

    Raises:
        StorageError: The part is damaged.
    """
    record = _raw_record(path)
    record |= {"fingerprint": digest(facts), "facts": facts}
    record |= {"rows": digest(rows.to_pylist()), "num_rows": rows.num_rows}
    _write(path, rows, record)


def _write(path: Path, rows: pa.Table, record: Mapping[str, Any]) -> None:
    text = without_secrets(json.dumps(record))
    own = {_METADATA_KEY: text, _CHECKSUM_KEY: digest(text)}
    metadata = {**(rows.schema.metadata or {}), **own}
    table = rows.replace_schema_metadata(metadata)
    with storage.replacing(path, temporary_folder(path.parent)) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def as_recorded(facts: Facts) -> Facts:
    """Facts as a record holds them: without the credentials of addresses."""
    recorded: Facts = json.loads(without_secrets(json.dumps(facts)))
    return recorded


def exists(path: Path) -> bool:
    """Tells whether there is a part, in its place or as a kept one that stands in for it."""
    return storage.exists(snapshot.file_of(path))


def read_record(path: Path) -> Record | None:
    """The record of a committed part; None if there is no part.

    Raises:
        StorageError: The file is damaged, in the place of another, or Maskmill did not write it.
    """
    try:
        record = _raw_record(path)
    except FileNotFoundError:
        return None
    _check_place(path, record.get("place"))
    return Record(
        facts=record["facts"],
        files=record["files"],
        failed=record["failed"],
        rows=record["rows"],
        num_rows=record["num_rows"],
        versions=record.get("versions", {}),
    )


def _raw_record(path: Path) -> dict[str, Any]:
    """The whole record of a part, with all keys of `Record`.

    Raises:
        FileNotFoundError: There is no part.
        StorageError: See `read_record`.
    """
    try:
        footer = pq.read_metadata(storage.arrow_sources([snapshot.file_of(path)])[0])
        text = (footer.metadata or {})[_METADATA_KEY].decode()
        if digest(text) != footer.metadata[_CHECKSUM_KEY].decode():
            raise ValueError("the metadata is not what was written")
        record: dict[str, Any] = json.loads(text)
        needed = [field.name for field in fields(Record) if field.default_factory is MISSING]
        if lacking := [name for name in needed if name not in record]:
            raise KeyError(lacking[0])
        return record
    except FileNotFoundError:
        raise
    except UNREADABLE as error:
        if getattr(error, "errno", None) is not None:
            raise  # an error of the operating system is not damage
        raise damaged_part(path) from error


def read_facts(path: Path) -> Facts | None:
    """The facts of a committed part; None if there is no part.

    Raises:
        StorageError: The file is damaged, or Maskmill did not write it.
    """
    record = read_record(path)
    return None if record is None else record.facts


def damage(
    path: Path, record: Record, folder: Path, kept: Mapping[Path, Path] | None = None
) -> list[str]:
    """Lists damage of a part and of the files that its rows describe; reads all of them.

    Args:
        path: The part, in its place or kept.
        record: Its record.
        folder: The folder of its place; the names of files are relative to it.
        kept: Kept files by the place that they would return to; another file may be there now.
    """
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
        described = storage.from_relative(folder, name)
        file = (kept or {}).get(described, described)
        try:
            if checksum_of_bytes(file) != expected:
                found.append(f"{file}: not the bytes that were written, its checksum differs")
        except FileNotFoundError:
            found.append(f"{file}: gone")
    return found


@cache
def installed(libraries: tuple[str, ...]) -> dict[str, str]:
    """The versions of those of these libraries that are installed, by name."""
    found = {}
    for name in libraries:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def read_rows(parts: Sequence[Path], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of each part; a column that was not there yet when it was written is null.

    Raises:
        DamagedPartError: A part is in the place of another.
    """
    for part, source in zip(parts, storage.arrow_sources(parts), strict=True):
        with pq.ParquetFile(source, page_checksum_verification=True) as file:
            text = (file.metadata.metadata or {}).get(_METADATA_KEY, b"{}")
            _check_place(part, json.loads(text).get("place"))
            there = {*file.schema_arrow.names}
            rows = file.read([name for name in schema.names if name in there], use_threads=False)
        for position, column in enumerate(schema):
            if column.name not in there:
                rows = rows.add_column(position, column, pa.nulls(rows.num_rows, column.type))
        yield rows.cast(schema).replace_schema_metadata(None)


def put_in_place(part: Path) -> bool:
    """Moves a part that lies in the place of another to its own; a mere copy is deleted.

    What lies in its place now comes to this one.

    Returns:
        Whether it was such a part.
    """
    owner = _owner(part)
    if owner in (None, place_of(part)):
        return False
    place = file_at(part, str(owner))
    if _owner(place) == owner:
        storage.remove(part)
        return True
    aside = temporary_folder(part.parent) / f".{part.name}.tmp"
    if place.exists():
        storage.move(place, aside)
    storage.move(part, place)
    if aside.exists():
        storage.move(aside, part)
    return True


def _owner(part: Path) -> str | None:
    """The place that a part was written for; None if it is missing, damaged, or says none."""
    with suppress(FileNotFoundError, StorageError):
        place: str | None = _raw_record(part).get("place")
        return place
    return None


def _check_place(part: Path, place: str | None) -> None:
    """Refuses a part that was written for another place; earlier versions recorded none."""
    if place not in (None, place_of(part)):
        of = str(place).rpartition("/")
        other = of[2] if of[0] == place_of(part).rpartition("/")[0] else str(place)
        what, fix = f"holds the rows of {other}", "put it right with: maskmill verify --rerun"
        raise DamagedPartError(what, where=str(part), fix=fix)


def is_readable(part: Path, schema: pa.Schema) -> bool:
    """Tells whether the rows of a part can be read."""
    try:
        [*read_rows([part], schema)]
    except (DamagedPartError, *UNREADABLE):
        return False
    return True


def damaged_part(part: Path) -> DamagedPartError:
    """The error for a part that cannot be read."""
    fix = "make it again with: maskmill verify --rerun"
    return DamagedPartError("damaged manifest part", where=str(part), fix=fix)
