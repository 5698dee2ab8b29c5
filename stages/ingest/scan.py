"""Reads files into manifest rows: a bad image becomes a row, a bad label file an error.

An image that could not be read only this time, e.g. for lack of memory, becomes a row of status
`failed`, and is read again by the next run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from pipeline import stopping
from pipeline.config.vocabulary import Vocabulary
from pipeline.engine.held_images import GONE
from pipeline.engine.input_files import InputFiles
from pipeline.errors import DataError
from pipeline.images import faults, images
from pipeline.images.faults import MissingImageError, UnreachableImageError, UnreadableImageError
from pipeline.images.limits import Limits, ValueRange
from pipeline.records.rows import ImageRow
from stages.ingest.image_remarks import remark_of
from stages.ingest.scan_mask import scan_mask

Entry = Mapping[str, Any]
"""A row of the layout (`stages.ingest.layout`)."""


_CONTENT = ("image_id", "mask_id", "width", "height", "format", "mask_class_ids", "mask_ignored")
"""Columns that hold what was read of an image and its label file."""


@dataclass(frozen=True)
class Reading:
    """How files are read.

    Attributes:
        vocabulary: Maps label values to class ids.
        limits: What an image or a label file may cost.
        value_ranges: The values that become black and white, of sources that have a range.
        as_stored: Sources whose images are not turned by their EXIF orientation.
    """

    vocabulary: Vocabulary
    limits: Limits
    value_ranges: Mapping[str, ValueRange]
    as_stored: frozenset[str] = frozenset()


@dataclass(frozen=True)
class ScanResult:
    """Result of reading one entry.

    Attributes:
        row: The manifest row of the image.
        problem: What is wrong with its label file.
        fault: The error of a disk that fails, which may concern all of its files.
    """

    row: ImageRow
    problem: DataError | None = None
    fault: OSError | None = None

    @property
    def is_failed(self) -> bool:
        """Whether the image may be readable another time."""
        return self.row["status"] == "failed"


def scan(
    entries: Sequence[Entry], known: Mapping[int, ImageRow], reading: Reading
) -> list[ScanResult]:
    """Reads the files of a shard.

    Args:
        entries: The images of the shard, in the order of rows.
        known: By row, the manifest rows so far; all of those that are no longer listed.
        reading: How files are read.

    Returns:
        The result of each entry, in order; rows lack `shard`.

    Raises:
        OSError: The disk fails for every file: it is gone, and reading on would find nothing.
        StorageError: The object store does not answer.
    """
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        read = partial(_scan_image, known=known, reading=reading)
        results = list(threads.map(read, entries))
    found = [result.fault for result in results if result.fault is not None]
    if found and len(found) == sum(entry["present"] for entry in entries):
        raise found[0]
    return results


def _scan_image(entry: Entry, known: Mapping[int, ImageRow], reading: Reading) -> ScanResult:
    stopping.check()
    place: ImageRow = {
        "uri": entry["image"],
        "source": entry["source"],
        "role": entry["role"],
        "mask_uri": entry["mask"],
        "label_scheme": entry["scheme"],
        "row": entry["row"],
    }
    if not entry["present"]:
        reason = "no longer in the source"
        return ScanResult({**known[entry["row"]], **place, "status": GONE, "error_message": reason})
    row: ImageRow = {
        **place,
        "status": "ok",
        "stamp": entry["stamp"],
        "mask_stamp": entry["mask_stamp"],
        "caption": entry["caption"],
        "url": entry["url"],
    }
    try:
        if entry["problem"] is not None:
            raise UnreadableImageError(entry["problem"])
        return ScanResult(row, _read(row, reading))
    except MissingImageError as error:
        # A file that the listing saw may come back, with the same stamp; a new one has a new stamp.
        if entry["stamp"] is None:
            return _rejected(row, error)
        return _failed(row, known, error)
    except UnreachableImageError as error:
        return _failed(row, known, error)
    except UnreadableImageError as error:
        return _rejected(row, error)
    except MemoryError:
        return _failed(row, known, faults.out_of_memory())
    except OSError as error:
        return _failed(row, known, faults.from_read_error(error), error)


def _rejected(row: ImageRow, error: Exception) -> ScanResult:
    return ScanResult({**row, "status": "rejected", "error_message": str(error)})


def _failed(
    row: ImageRow, known: Mapping[int, ImageRow], error: Exception, fault: OSError | None = None
) -> ScanResult:
    """A row of an image that cannot be read now: what was read of it stays, so its labels do."""
    before: ImageRow = known.get(row["row"], {})
    kept: ImageRow = {name: before[name] for name in _CONTENT if name in before}  # type: ignore
    return ScanResult({**kept, **row, "status": "failed", "error_message": str(error)}, fault=fault)


def _read(row: ImageRow, reading: Reading) -> DataError | None:
    """Adds the columns of the image and its label file to a row.

    Returns:
        What is wrong with the label file.

    Raises:
        UnreadableImageError: The image cannot be read or decoded; or neither can its label file,
            but only at this time (`UnreachableImageError`).
    """
    content = images.read_bytes(row["uri"], reading.limits)
    row["image_id"] = images.content_id(content)
    value_range = reading.value_ranges.get(row["source"])
    as_stored = row["source"] in reading.as_stored
    decoded = images.decode_image(content, reading.limits, value_range, as_stored=as_stored)
    row["image_id"] = images.image_id(
        content,
        value_range if decoded.is_scaled else None,
        as_stored=as_stored and decoded.orientation > 1,
    )
    row["height"], row["width"] = decoded.pixels.shape[:2]
    row["format"] = decoded.format
    if remark := remark_of(decoded, value_range):
        row["remark"] = remark
    if row["mask_uri"] is None:
        return None
    orientation = None if as_stored else decoded.orientation
    return scan_mask(row["mask_uri"], row, orientation, reading.vocabulary, reading.limits)


def content_ids(uris: Sequence[str], limits: Limits) -> Iterator[tuple[str, str | None]]:
    """Yields the `image_id` of each file with its address; None for one that cannot be read."""

    def read(uri: str) -> str | None:
        stopping.check()
        try:
            return images.content_id(images.read_bytes(uri, limits))
        except UnreadableImageError:
            return None

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        yield from zip(uris, threads.map(read, uris), strict=True)


def check_label_files(rows: pa.Table) -> InputFiles:
    """Looks for label files which are not those that ingest read, or cannot be read now.

    Args:
        rows: Rows of the images manifest: `mask_uri`, `mask_id` and `status`.
    """
    altered, unreachable = [], []
    for row in rows.to_pylist():
        stopping.check()
        if row["mask_id"] is not None and row["status"] != GONE:
            try:
                images.read_bytes(row["mask_uri"], expected=row["mask_id"])
            except UnreachableImageError as error:
                unreachable.append(f"{row['mask_uri']}: {error}")
            except UnreadableImageError as error:
                altered.append(f"{row['mask_uri']}: {error}")
    return InputFiles(tuple(altered), tuple(unreachable))
