"""Reads image and label files into manifest rows: bad images become rows, wrong labels errors."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pipeline.config.vocabulary import IGNORE, Vocabulary
from pipeline.errors import DataError
from pipeline.images import images
from pipeline.images.limits import Limits

Entry = Mapping[str, Any]
"""A row of the layout (`stages.ingest.layout`)."""


@dataclass(frozen=True)
class Scanned:
    """What came of one entry.

    Attributes:
        row: Its manifest row.
        problem: What is wrong with its label file.
        is_unreachable: Whether its image may be readable another time.
    """

    row: dict[str, Any]
    problem: DataError | None = None
    is_unreachable: bool = False


def scan(
    entries: Sequence[Entry],
    gone: Mapping[int, Mapping[str, Any]],
    vocabulary: Vocabulary,
    limits: Limits,
) -> list[Scanned]:
    """Reads a shard's files.

    Args:
        entries: The shard, in the order of rows.
        gone: By row, the manifest rows of images that are no longer listed.
        vocabulary: Reads the label files.
        limits: What an image or a label file may cost.

    Returns:
        What came of each entry, in order; rows lack `shard`.
    """
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        read = partial(_scan_one, gone=gone, vocabulary=vocabulary, limits=limits)
        return list(threads.map(read, entries))


def _scan_one(
    entry: Entry,
    gone: Mapping[int, Mapping[str, Any]],
    vocabulary: Vocabulary,
    limits: Limits,
) -> Scanned:
    if not entry["present"]:
        known = gone[entry["row"]]
        return Scanned({**known, "status": "gone", "error_message": "no longer in the source"})
    row: dict[str, Any] = {
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
        is_unreachable = isinstance(error, images.UnreachableImageError)
        rejected = {**row, "status": "rejected", "error_message": str(error)}
        return Scanned(rejected, is_unreachable=is_unreachable)
    row["height"], row["width"] = decoded.pixels.shape[:2]
    row["format"] = decoded.format
    if entry["mask"] is None:
        return Scanned(row)
    return _scan_mask(entry, row, vocabulary, limits)


def _scan_mask(
    entry: Entry, row: dict[str, Any], vocabulary: Vocabulary, limits: Limits
) -> Scanned:
    where = entry["mask"]
    try:
        content = images.read_bytes(where, limits)
        labels = images.decode_labels(content, limits)
    except images.UnreadableImageError as error:
        fix = "replace it by a label image, e.g. a PNG of class ids"
        return Scanned(row, DataError(f"unreadable mask: {error}", where=where, fix=fix))
    expected = (row["height"], row["width"])
    if labels.shape[:2] != expected:
        what = f"the mask is {labels.shape[1]} x {labels.shape[0]} pixels"
        fix = f"its image {entry['image']} is {expected[1]} x {expected[0]}; make them equal"
        return Scanned(row, DataError(what, where=where, fix=fix))
    mask, unknown = vocabulary.to_mask(labels, entry["scheme"])
    if unknown:
        shown = ", ".join(unknown[:5]) + (", ..." if unknown[5:] else "")
        if entry["scheme"] is None:
            fix = f"use 0 to {vocabulary.num_classes - 1} or {IGNORE}, or name a label_scheme"
        else:
            fix = f"add it to label_schemes.{entry['scheme']} of vocabulary {vocabulary.name!r}"
        what = f"{'colour' if labels.ndim == 3 else 'class id'} {shown} is not in the vocabulary"
        return Scanned(row, DataError(what, where=where, fix=fix))
    found = np.unique(mask)
    row["mask_id"] = images.content_id(content)
    row["mask_class_ids"] = [int(class_id) for class_id in found if class_id != IGNORE]
    return Scanned(row)
