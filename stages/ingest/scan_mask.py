"""Reads a label file into the columns of a row, or says what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.config.label_values import is_renumbered
from pipeline.config.vocabulary import CLASS_COLORS, IGNORE, Vocabulary
from pipeline.errors import DataError
from pipeline.images import images, opening
from pipeline.images.faults import UnreachableImageError, UnreadableImageError
from pipeline.images.label_files import decode_labels
from pipeline.images.limits import Limits
from pipeline.images.opening import SWAPS_SIDES
from pipeline.records.rows import ImageRow

_SHOWN = 5
"""Unknown label values that an error lists."""


def scan_mask(
    uri: str, row: ImageRow, orientation: int | None, vocabulary: Vocabulary, limits: Limits
) -> DataError | None:
    """Adds the columns of a label file to a row.

    Args:
        uri: Address of the label file.
        row: The row, with the columns of the image.
        orientation: EXIF orientation of the image, 1 to 8; None where it is ignored.
        vocabulary: Maps label values to class ids.
        limits: What the label file may cost.

    Returns:
        What is wrong with the file.

    Raises:
        UnreachableImageError: The file cannot be read this time.
    """
    try:
        content = images.read_bytes(uri, limits)
        in_colors = row["label_scheme"] == CLASS_COLORS
        labels = decode_labels(content, limits, in_colors=in_colors)
    except UnreachableImageError as error:
        raise UnreachableImageError(f"label file {uri}: {error}") from error
    except UnreadableImageError as error:
        fix = "replace it with a label image, e.g. a PNG of class ids"
        if "\\" in uri:
            fix = "write its path with `/`: a backslash is part of a name here"
        return DataError(f"cannot read the label file: {error}", where=uri, fix=fix)
    own_turn = opening.orientation_of(content)
    if orientation is None:
        if own_turn > 1:
            what = "the label file has an EXIF orientation, which its source ignores"
            return DataError(what, where=uri, fix="save it without EXIF data")
        orientation = 1
    if labels.shape[:2] != (row["height"], row["width"]):
        return _other_size(uri, labels.shape, own_turn, row, orientation)
    if (doubt := _doubt(row, orientation, own_turn)) is not None:
        row["remark"] = f"{doubt}, and its size fits both ways: look at it with `maskmill show`"
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
        greys = labels if labels.ndim == 2 and scheme is None else None
        return _unknown_labels(unknown, uri, scheme, vocabulary, greys)
    row["label_scheme"] = scheme
    row["mask_id"] = images.content_id(content)
    row["mask_ignored"] = float((mask == IGNORE).mean())
    row["mask_class_ids"] = [int(class_id) for class_id in np.unique(mask) if class_id != IGNORE]
    return None


def _doubt(row: ImageRow, turn: int, own_turn: int) -> str | None:
    """Says how image and label file are turned, if they differ in it and no size tells."""
    if turn == own_turn:
        return None
    turns = [each for each in (turn, own_turn) if each > 1]
    if row["height"] != row["width"] and max(turns) >= SWAPS_SIDES:
        return None
    if own_turn == 1:
        return "turned by EXIF, but the label file is not"
    return f"its label file is turned by its own EXIF, but the image {_how(turn)}"


def _how(turn: int) -> str:
    return "is not" if turn == 1 else "in another way"


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
    if mask == (height, width) and image_turn >= SWAPS_SIDES and turn == 1:
        fix = "turn the mask like the image, or take the orientation out of the image's EXIF data"
    elif mask == (height, width) and turn >= SWAPS_SIDES and image_turn == 1:
        fix = "take the orientation out of the mask's EXIF data"
    return DataError(what, where=uri, fix=fix)


def _turned(width: int, height: int, orientation: int) -> str:
    """The stored size, in words, of a file that is turned to this size."""
    if orientation < SWAPS_SIDES:
        return ""
    return f" after its EXIF orientation; stored {height} x {width}"


def _unknown_labels(
    unknown: Sequence[str],
    uri: str,
    scheme: str | None,
    vocabulary: Vocabulary,
    greys: npt.NDArray[np.integer] | None,
) -> DataError:
    """The error of label values that the vocabulary has no class for.

    Args:
        unknown: The values.
        uri: Address of the file.
        scheme: The scheme that reads it.
        vocabulary: Has no class for them.
        greys: The pixels (H, W), if they may be colours of classes.
    """
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
        if greys is not None and _are_colors(greys, vocabulary):
            fix = f"its greys are colours of classes: set `label_scheme: {CLASS_COLORS}`"
    return DataError(f"{kind} {shown} is not in the vocabulary{count}", where=uri, fix=fix)


def _are_colors(greys: npt.NDArray[np.integer], vocabulary: Vocabulary) -> bool:
    """Whether greys (H, W) are all colours of classes, or ignored ones."""
    if greys.max() > IGNORE:
        return False
    colors = np.stack([greys] * 3, axis=-1).astype(np.uint8)
    mask, unknown = vocabulary.to_mask(colors, CLASS_COLORS)
    return not unknown and bool((mask != IGNORE).any())
