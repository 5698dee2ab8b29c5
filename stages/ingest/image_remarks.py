"""Remarks on images that are read, but maybe not as their owner thinks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from pipeline.images.images import DecodedImage
    from pipeline.images.limits import ValueRange

_FEW_LEVELS = 16
"""So few grey levels of 256 are remarked, wherever the values lie."""
_FEW_BITS = 14
"""An image of 16 bits whose values take no more was most likely made by a sensor of fewer bits."""


def image_remarks(images: pa.Table) -> Iterator[str]:
    """A line for each source and remark: how many images it concerns, and the first of them.

    Args:
        images: Columns source, remark and uri of the images manifest.
    """
    remarked = images.filter(images["remark"].is_valid())
    first: dict[tuple[str, str], str] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for row in remarked.select(["source", "remark", "uri"]).to_pylist():
        key = (row["source"], row["remark"])
        first.setdefault(key, row["uri"])
        counts[key] += 1
    for (source, remark), count in counts.items():
        images_are = f"{count} image{'s'[: count != 1]}"
        yield f"{source}: {images_are}: {remark}; first: {first[source, remark]}"


def remark_of(decoded: DecodedImage, value_range: ValueRange | None) -> str | None:
    """A remark on the values of an image of more than 8 bits, if there is one to make.

    Args:
        decoded: The image.
        value_range: The range of its source, if it has one.
    """
    if decoded.is_clipped:
        return "values outside 0 to 65535, which count as the nearest of these: save 16 bits"
    if not decoded.max_value:
        return None
    if decoded.is_scaled and value_range is not None:
        low, high = value_range
        if decoded.max_value > high:
            return f"values above {high}, which become white"
        return f"only values below {low}, which become black" if decoded.max_value < low else None
    bits = decoded.max_value.bit_length()
    if bits > _FEW_BITS:
        low, high = decoded.min_value, decoded.max_value
        levels = (high >> 8) - (low >> 8) + 1
        if not decoded.is_scaled or levels > _FEW_LEVELS or low == high:
            return None
        return f"only {levels} grey levels: give `value_range` around values as {low} to {high}"
    if not decoded.is_scaled:
        return f"only {bits} of 16 bits a channel used, of which 8 are read: convert to 8 bits"
    levels = max(1, 2 ** (bits - 8))
    kept = f"{levels} grey level{'s'[: levels != 1]} remain{'s'[: levels == 1]}"
    return f"only {bits} of 16 bits used, so {kept}: give `value_range: [0, {2**bits - 1}]`"
