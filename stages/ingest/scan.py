"""Reads files into manifest rows: a bad image becomes a row, a bad label file an error."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pipeline import stopping
from pipeline.config.vocabulary import IGNORE, Vocabulary
from pipeline.errors import DataError
from pipeline.images import images
from pipeline.images.limits import Limits
from pipeline.records.rows import ImageRow

Entry = Mapping[str, Any]
"""A row of the layout (`stages.ingest.layout`)."""
_SHOWN = 5
"""Unknown label values that an error lists."""


@dataclass(frozen=True)
class ScanResult:
    """Result of reading one entry.

    Attributes:
        row: The manifest row of the image.
        problem: What is wrong with its label file.
        is_unreachable: Whether the image may be readable another time.
    """

    row: ImageRow
    problem: DataError | None = None
    is_unreachable: bool = False


def scan(
    entries: Sequence[Entry],
    gone: Mapping[int, ImageRow],
    vocabulary: Vocabulary,
    limits: Limits,
) -> list[ScanResult]:
    """Reads the files of a shard.

    Args:
        entries: The images of the shard, in the order of rows.
        gone: By row, the manifest rows of images that are no longer listed.
        vocabulary: Maps label values to class ids.
        limits: What an image or a label file may cost.

    Returns:
        The result of each entry, in order; rows lack `shard`.
    """
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        read = partial(_scan_image, gone=gone, vocabulary=vocabulary, limits=limits)
        return list(threads.map(read, entries))


def _scan_image(
    entry: Entry, gone: Mapping[int, ImageRow], vocabulary: Vocabulary, limits: Limits
) -> ScanResult:
    stopping.check()
    if not entry["present"]:
        known = gone[entry["row"]]
        return ScanResult({**known, "status": "gone", "error_message": "no longer in the source"})
    row: ImageRow = {
        "uri": entry["image"],
        "source": entry["source"],
        "role": entry["role"],
        "mask_uri": entry["mask"],
        "label_scheme": entry["scheme"],
        "row": entry["row"],
        "status": "ok",
        "stamp": entry["stamp"],
        "mask_stamp": entry["mask_stamp"],
        "caption": entry["caption"],
        "url": entry["url"],
    }
    try:
        if entry["problem"] is not None:
            raise images.UnreadableImageError(entry["problem"])
        content = images.read_bytes(entry["image"], limits)
        row["image_id"] = images.content_id(content)
        decoded = images.decode_image(content, limits)
    except images.UnreadableImageError as error:
        row["status"], row["error_message"] = "rejected", str(error)
        is_unreachable = isinstance(error, images.UnreachableImageError)
        return ScanResult(row, is_unreachable=is_unreachable)
    row["height"], row["width"] = decoded.pixels.shape[:2]
    row["format"] = decoded.format
    if entry["mask"] is None:
        return ScanResult(row)
    return ScanResult(row, _scan_mask(entry["mask"], row, vocabulary, limits))


def _scan_mask(uri: str, row: ImageRow, vocabulary: Vocabulary, limits: Limits) -> DataError | None:
    """Adds the columns of the label file to a row, or returns what is wrong with the file."""
    try:
        content = images.read_bytes(uri, limits)
        labels = images.decode_labels(content, limits)
    except images.UnreadableImageError as error:
        fix = "replace it with a label image, e.g. a PNG of class ids"
        return DataError(f"cannot read the label file: {error}", where=uri, fix=fix)
    height, width = labels.shape[:2]
    if (height, width) != (row["height"], row["width"]):
        size = f"{row['width']} x {row['height']}"
        what = f"the mask is {width} x {height} pixels but its image {row['uri']} is {size}"
        fix = "use a mask of the same size"
        return DataError(what, where=uri, fix=fix)
    mask, unknown = vocabulary.to_mask(labels, row["label_scheme"])
    if unknown:
        return _unknown_labels(unknown, uri, row["label_scheme"], vocabulary, labels.ndim == 3)
    row["mask_id"] = images.content_id(content)
    row["mask_class_ids"] = [int(class_id) for class_id in np.unique(mask) if class_id != IGNORE]
    return None


def _unknown_labels(
    unknown: Sequence[str], uri: str, scheme: str | None, vocabulary: Vocabulary, is_color: bool
) -> DataError:
    """The error of label values that the vocabulary has no class for."""
    shown = ", ".join(unknown[:_SHOWN]) + (", ..." if unknown[_SHOWN:] else "")
    kind = "colour" if is_color else "class id"
    if scheme is not None:
        fix = f"add it to label_schemes.{scheme} of vocabulary {vocabulary.name!r}"
    else:
        known = f"use class ids 0 to {vocabulary.num_classes - 1} and {IGNORE} (= ignore)"
        fix = f"{known}, or set `label_scheme` of the source to a scheme that has it"
    return DataError(f"{kind} {shown} is not in the vocabulary", where=uri, fix=fix)
