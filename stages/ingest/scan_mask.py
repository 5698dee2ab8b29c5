"""Reads a label file into the columns of a row, or says what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.config.label_values import is_renumbered
from pipeline.config.vocabulary import CLASS_COLORS, IGNORE, Vocabulary
from pipeline.errors import DataError
from pipeline.images import images, opening
from pipeline.images.faults import UnreachableImageError, UnreadableImageError
from pipeline.images.label_files import decode_labels
from pipeline.images.limits import Limits
from pipeline.records.rows import ImageRow

_SHOWN = 5
"""Unknown label values that an error lists."""
_SWAPS_SIDES = 5
"""The lowest EXIF orientation that exchanges width and height; all higher ones do too."""


def scan_mask(
    uri: str, row: ImageRow, orientation: int, vocabulary: Vocabulary, limits: Limits
) -> DataError | None:
    """Adds the columns of a label file to a row.

    Args:
        uri: Address of the label file.
        row: The row, with the columns of the image.
        orientation: EXIF orientation of the image, 1 to 8.
        vocabulary: Maps label values to class ids.
        limits: What the label file may cost.

    Returns:
        What is wrong with the file.

    Raises:
        UnreachableImageError: The file cannot be read this time.
    """
    try:
        content = images.read_bytes(uri, limits)
        labels = decode_labels(content, limits)
    except UnreachableImageError as error:
        raise UnreachableImageError(f"label file {uri}: {error}") from error
    except UnreadableImageError as error:
        fix = "replace it with a label image, e.g. a PNG of class ids"
        if "\\" in uri:
            fix = "write its path with `/`: a backslash is part of a name here"
        return DataError(f"cannot read the label file: {error}", where=uri, fix=fix)
    if labels.shape[:2] != (row["height"], row["width"]):
        return _other_size(uri, labels.shape, opening.orientation_of(content), row, orientation)
    if _fits_both_ways(row, orientation) and opening.orientation_of(content) == 1:
        row["remark"] = (
            "turned by EXIF, but the label file is not, and its size fits both ways: look whether "
            "it fits with `maskmill show`"
        )
    try:
        scheme = vocabulary.scheme_of(labels, row["label_scheme"])
    except ValueError as error:
        fix = f"save class ids in one channel, or set `label_scheme: {CLASS_COLORS}` of the source"
        return DataError(str(error), where=uri, fix=fix)
    if labels.ndim == 2 and scheme is None and (palette := opening.palette_of(content)):
        colors = [entry.color for entry in vocabulary.classes]
        if is_renumbered(labels, palette, colors):
            what = "its palette has the colours of the classes at other numbers than the class ids"
            return DataError(what, where=uri, fix="save it as RGB, or as class ids")
    mask, unknown = vocabulary.to_mask(labels, scheme)
    if unknown:
        return _unknown_labels(unknown, uri, scheme, vocabulary)
    row["label_scheme"] = scheme
    row["mask_id"] = images.content_id(content)
    row["mask_ignored"] = float((mask == IGNORE).mean())
    row["mask_class_ids"] = [int(class_id) for class_id in np.unique(mask) if class_id != IGNORE]
    return None


def _fits_both_ways(row: ImageRow, orientation: int) -> bool:
    """Whether an image is turned, but has the same size as it is stored and upright."""
    return orientation > 1 and (orientation < _SWAPS_SIDES or row["height"] == row["width"])


def _other_size(
    uri: str, shape: Sequence[int], turn: int, row: ImageRow, image_turn: int
) -> DataError:
    """The error of a label file of another size than its image."""
    width, height = row["width"], row["height"]
    assert width is not None
    assert height is not None
    mask = (shape[1], shape[0])
    what = (
        f"the mask is {mask[0]} x {mask[1]} pixels{_turned(*mask, turn)} "
        f"but its image {row['uri']} is {width} x {height}{_turned(width, height, image_turn)}"
    )
    fix = "use a mask of the same size"
    if mask == (height, width) and image_turn >= _SWAPS_SIDES and turn == 1:
        fix = "turn the mask like the image, or take the orientation out of the image's EXIF data"
    elif mask == (height, width) and turn >= _SWAPS_SIDES and image_turn == 1:
        fix = "take the orientation out of the mask's EXIF data"
    return DataError(what, where=uri, fix=fix)


def _turned(width: int, height: int, orientation: int) -> str:
    """The stored size, in words, of a file that is turned to this size."""
    if orientation < _SWAPS_SIDES:
        return ""
    return f" after its EXIF orientation; stored {height} x {width}"


def _unknown_labels(
    unknown: Sequence[str], uri: str, scheme: str | None, vocabulary: Vocabulary
) -> DataError:
    """The error of label values that the vocabulary has no class for."""
    shown = ", ".join(unknown[:_SHOWN]) + (", ..." if unknown[_SHOWN:] else "")
    kind = "colour" if unknown[0].startswith("#") else "class id"
    count = f" ({len(unknown):,} colours)" if kind == "colour" and unknown[_SHOWN:] else ""
    if scheme not in (None, CLASS_COLORS):
        fix = f"add it to label_schemes.{scheme} of vocabulary {vocabulary.name!r}"
    else:
        known = f"use class ids 0 to {vocabulary.num_classes - 1} and {IGNORE} (= ignore)"
        if scheme == CLASS_COLORS:
            known = f"{known}, or the colours of the classes"
        fix = f"{known}, or set `label_scheme` of the source to a scheme that has it"
    return DataError(f"{kind} {shown} is not in the vocabulary{count}", where=uri, fix=fix)
