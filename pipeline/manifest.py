"""Manifests: folders of Parquet parts that `pandas.read_parquet(folder)` reads as one table.

A part is written last, durably and all or none (`pipeline.storage`), so it is the completion record
of its shard: rows exist exactly when their masks do. Its key-value metadata holds what the shard
was made from. Of many parts there is a copy in one file (`pipeline.part_index`).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.checksum import checksum_of_bytes
from pipeline.errors import StorageError
from pipeline.part_index import IndexedPart, PartIndex
from pipeline.section import Facts

_METADATA_KEY = b"maskmill"
_RECORDED_LIBRARIES = ("maskmill", "numpy", "pyarrow", "zarr", "torch")
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
        num_rows: How many rows it has.
    """

    facts: Facts
    files: Mapping[str, str]
    failed: int
    num_rows: int


@dataclass(frozen=True)
class Table:
    """A kind of manifest.

    Attributes:
        name: Its folder below manifests/<run>/.
        description: What one row is, for the data dictionary.
        schema: Arrow schema; every field has metadata ``description``.
    """

    name: str
    description: str
    schema: pa.Schema

    def rows(self, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
        """Rows as an Arrow table of this schema; a missing column is null."""
        return pa.Table.from_pylist([dict(row) for row in rows], schema=self.schema)


def _schema(*columns: tuple[str, pa.DataType, str]) -> pa.Schema:
    return pa.schema(
        [pa.field(name, kind, metadata={"description": text}) for name, kind, text in columns]
    )


SCENES = Table(
    "scenes",
    "A drawn image of the embedded sandbox; only runs with a `sandbox` section have this table.",
    _schema(
        ("uri", pa.string(), "path of the image file, below the run's data folder"),
        ("role", pa.string(), "folder it was drawn into: labeled, unlabeled, ood, val or test"),
        ("domain", pa.string(), "look of the scene: id or web"),
        ("seed", pa.int64(), "seed of the world"),
        ("index", pa.int64(), "number of the scene; (domain, seed, index) draws it again"),
        ("caption", pa.string(), "what is in the scene, in words"),
    ),
)

IMAGES = Table(
    "images",
    "An image of a source, good or bad. Rows never move; (shard, row) is where its labels are.",
    _schema(
        ("image_id", pa.string(), "first 16 hex digits of the SHA-256 of the file's bytes"),
        ("uri", pa.string(), "path of the image file; in a tar, archive#name@first byte+size"),
        ("source", pa.string(), "name of the source in the config"),
        ("role", pa.string(), "labeled, unlabeled, ood, val or test"),
        ("mask_uri", pa.string(), "path of the label file; null where there is none"),
        ("mask_id", pa.string(), "first 16 hex digits of the SHA-256 of the label file's bytes"),
        ("label_scheme", pa.string(), "the vocabulary's scheme that reads the label file"),
        ("mask_class_ids", pa.list_(pa.uint8()), "class ids that occur in the label file"),
        ("width", pa.int32(), "pixels, after EXIF orientation; null where unreadable"),
        ("height", pa.int32(), "pixels, after EXIF orientation; null where unreadable"),
        ("format", pa.string(), "format found in the file: JPEG, PNG, ..."),
        ("shard", pa.int32(), "unit of work, of the Parquet part and of the Zarr shard file"),
        ("row", pa.int64(), "position in the label arrays; shard = row // shard size"),
        ("status", pa.string(), "ok, rejected (unreadable), duplicate (by content) or gone"),
        ("error_message", pa.string(), "why the status is not ok"),
        ("caption", pa.string(), "the source's text for the image; null where it has none"),
        ("url", pa.string(), "where the source got the image; null where it does not say"),
        (
            "stamp",
            pa.string(),
            "of the image file as it was read: size and modification time, or ETag",
        ),
        ("mask_stamp", pa.string(), "the same of the label file"),
    ),
)

PROPOSALS = Table(
    "proposals",
    "SAM's masks of an image, the sure ones first; they overlap and know no class. The lists have "
    "an item a mask.",
    _schema(
        ("image_id", pa.string(), "the image, as in `images`"),
        ("shard", pa.int32(), "shard of the image"),
        ("row", pa.int64(), "row of the image, as in `images`"),
        (
            "height",
            pa.int32(),
            "rows of the masks: the image's, its long side brought to `size_px`",
        ),
        ("width", pa.int32(), "columns of the masks"),
        ("num_masks", pa.int32(), "how many masks there are"),
        (
            "rle",
            pa.list_(pa.string()),
            "COCO's compressed run-length `counts`; size = height, width",
        ),
        ("area", pa.list_(pa.int32()), "pixels of the mask"),
        ("bbox", pa.list_(pa.list_(pa.int32(), 4)), "left, top, right - left, bottom - top in px"),
        ("predicted_iou", pa.list_(pa.float32()), "SAM's own estimate of the mask's IoU"),
        ("stability_score", pa.list_(pa.float32()), "IoU of the mask cut lower and cut higher"),
        ("seconds", pa.float32(), "time that the image's masks took"),
        ("status", pa.string(), "ok, or failed: the file could no longer be read"),
        ("error_message", pa.string(), "why the status is not ok"),
    ),
)

PSEUDO_LABELS = Table(
    "pseudo_labels",
    "A pseudo-label of one labeler for one image. The folder's partition column is `labeler`.",
    _schema(
        ("image_id", pa.string(), "the image, as in `images`"),
        ("shard", pa.int32(), "shard of the image"),
        ("row", pa.int64(), "position in the arrays `mask` and `confidence` of `store`"),
        ("store", pa.string(), "Zarr group that holds the label, below the workspace"),
        ("height", pa.int32(), "rows of the label that are image; the rest of the canvas is 255"),
        ("width", pa.int32(), "columns of the label that are image"),
        ("coverage", pa.float32(), "share of the image's pixels that are not ignore, 0 to 1"),
        ("mean_confidence", pa.float32(), "mean over the covered pixels, 0 to 1"),
        ("class_ids", pa.list_(pa.uint8()), "classes that occur, ascending"),
        ("class_fractions", pa.list_(pa.float32()), "share of the image's pixels of each"),
        ("seconds", pa.float32(), "labeling time of the image's batch, shared evenly"),
        ("status", pa.string(), "ok, or failed: the file could no longer be read"),
        ("error_message", pa.string(), "why the status is not ok"),
        ("fingerprint", pa.string(), "of all the shard was made from; equal means equal labels"),
    ),
)

METRICS = Table(
    "metrics",
    "One number that a stage measured.",
    _schema(
        ("run", pa.string(), "name of the run"),
        ("variant", pa.string(), "training variant; where `seed` is null the labeler"),
        ("seed", pa.int64(), "seed of the training; null where a labeler was measured"),
        ("step", pa.int64(), "training steps done when it was measured"),
        ("epoch", pa.float32(), "passes over the unlabeled images (labeled, where there are none)"),
        ("split", pa.string(), "images it was measured on: train, or the role of the images"),
        ("name", pa.string(), "loss/<term>, learning_rate, miou, pixel_accuracy, iou/<class>"),
        ("value", pa.float64(), "the number; IoU and accuracy from 0 to 1"),
    ),
)

TABLES = (SCENES, IMAGES, PROPOSALS, PSEUDO_LABELS, METRICS)


def digest(value: object) -> str:
    """16 hex digits of the SHA-256 of a plain value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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
        "config": dict(config),
        "versions": {name: version(name) for name in _RECORDED_LIBRARIES},
    }
    metadata = {**(rows.schema.metadata or {}), _METADATA_KEY: json.dumps(record)}
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
        record = json.loads((footer.metadata or {})[_METADATA_KEY])
        files, failed = record.get("files", {}), record.get("failed", 0)
        return Record(record["facts"], files, failed, footer.num_rows)
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
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
        pq.read_table(source, partitioning=None, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise
        found.append(f"{path}: damaged manifest part")
    for name, expected in record.files.items():
        file = storage.reached(path.parent, name)
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
    stamps = _stamps(folder)
    names = list(table.schema.names if columns is None else columns)
    known: Set[str] = set()
    if set(names) <= set(_indexed_columns(table)):
        index, known = _indexed(folder, stamps)
    schema = pa.schema([table.schema.field(name) for name in names])
    found = [schema.empty_table()]
    try:
        for is_known, group in groupby(stamps, known.__contains__):
            parts = list(group)
            if is_known:
                found += (rows.cast(schema) for rows in index.rows(parts, names))
            else:
                found.append(_read_parts([folder / part for part in parts], table, names))
    except (pa.ArrowException, OSError, KeyError) as error:
        if getattr(error, "errno", None) is not None:
            raise
        # Arrow does not always say which one it is; a damaged index is as good as none.
        every = [folder / name for name in stamps]
        for part in every:
            if not _is_readable(part, table, names):
                raise _damaged(part) from error
        found = [_read_parts(every, table, names)]
    return pa.concat_tables(rows.replace_schema_metadata(None) for rows in found)


def read_records(folder: Path) -> dict[str, Record]:
    """What the parts of a folder say of themselves, by file name; damaged ones are left out.

    Of those that are in the index, `files` is empty.
    """
    stamps = _stamps(folder)
    index, fresh = _indexed(folder, stamps)
    known = ((name, index.parts[name]) for name in fresh)
    found = {name: Record(part.facts, {}, part.failed, part.num_rows) for name, part in known}
    for name in stamps.keys() - fresh:
        with suppress(StorageError):
            if (record := read_record(folder / name)) is not None:
                found[name] = record
    return found


def update_index(folder: Path, table: Table) -> None:
    """Writes the index of a folder anew, where it lacks so many parts that it is worth it.

    For the holder of the workspace's lock. Where it cannot be written, reading is slower.
    """
    stamps = _stamps(folder)
    index, fresh = _indexed(folder, stamps)
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
    try:
        return _read_parts([path], table, columns)
    except FileNotFoundError as error:
        fix = "run again: what is missing is made"
        raise StorageError("no such manifest part", where=str(path), fix=fix) from error
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise
        raise _damaged(path) from error


def remove_temporaries(folder: Path) -> None:
    """Deletes what a killed writer left; only for the holder of the workspace's lock."""
    for path in storage.temporaries(folder, "**/.part-*.tmp"):
        path.unlink(missing_ok=True)


def data_dictionary() -> str:
    """The text of manifests/README.md: every table and column."""
    lines = [
        "# Data dictionary",
        "",
        "Every table is a folder of Parquet parts below `manifests/<run>/`; read it whole:",
        "",
        '    pd.read_parquet("manifests/sandbox/images")',
        "",
        "A part's key-value metadata (`maskmill`, JSON) holds its fingerprint, the facts behind",
        "it, the resolved config section and library versions.",
        "",
        "This page is generated: `python -m pipeline.manifest > manifests/README.md`.",
    ]
    for table in TABLES:
        lines += ["", f"## {table.name}", "", table.description, "", "| column | type | meaning |"]
        lines += ["|---|---|---|"]
        for field in table.schema:
            meaning = field.metadata[b"description"].decode()
            lines.append(f"| `{field.name}` | {field.type} | {meaning} |")
    return "\n".join(lines) + "\n"


def _stamps(folder: Path) -> dict[str, str]:
    """The parts of a folder by name, in order, and what changes when one is written anew."""
    stamps = storage.stamps_in(folder)
    return {name: stamps[name] for name in sorted(stamps) if fnmatchcase(name, "part-*.parquet")}


def _indexed(folder: Path, stamps: Mapping[str, str]) -> tuple[PartIndex, Set[str]]:
    """The index of a folder, and the parts that are in it as they are now."""
    index = PartIndex(folder)
    return index, {name for name, part in index.parts.items() if stamps.get(name) == part.stamp}


def _indexed_columns(table: Table) -> list[str]:
    return [field.name for field in table.schema if not pa.types.is_list(field.type)]


def _read_parts(parts: Sequence[Path], table: Table, columns: Sequence[str] | None) -> pa.Table:
    tables = [
        pq.read_table(
            source,
            columns=columns,
            schema=table.schema,
            partitioning=None,
            page_checksum_verification=True,
        ).replace_schema_metadata(None)
        for source in _sources(parts)
    ]
    return pa.concat_tables(tables)


def _sources(parts: Sequence[Path]) -> list[Any]:
    """What one `read_table` each takes: files of a disk all at once, objects one by one."""
    return storage.arrow_sources(parts) if storage.is_object(parts[0]) else [parts]


def _is_readable(part: Path, table: Table, columns: Sequence[str] | None) -> bool:
    try:
        _read_parts([part], table, columns)
    except (pa.ArrowException, OSError):
        return False
    return True


def _damaged(part: Path) -> DamagedPartError:
    fix = "do it again with: maskmill verify --rerun"
    return DamagedPartError("damaged manifest part", where=str(part), fix=fix)


if __name__ == "__main__":
    import sys

    sys.stdout.write(data_dictionary())
