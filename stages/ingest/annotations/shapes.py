"""Annotated images as all formats give them: named shapes in pixels, in the order of the file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from pipeline.errors import DataError
from pipeline.images.limits import Limits

MAX_PIXELS = Limits().max_pixels
"""The largest mask that is read, in pixels: a few bytes of an annotation can ask for any size."""
_FARTHEST = 1e9
"""The largest coordinate; more is no position in an image."""
_CORNERS = 64
"""Corners of the polygon that stands for an ellipse."""

Polygon = tuple[float, ...]
"""x and y of each corner in turn, in pixels from the top left corner of the image: the first pixel
reaches from 0 to 1. At least three corners, all finite."""


@dataclass(frozen=True)
class Mask:
    """Pixels of a window of an image, as run lengths.

    Attributes:
        left: First column of the window in the image.
        top: Its first row.
        width: Its columns.
        height: Its rows.
        counts: (N,) int64: numbers of pixels outside and inside in turn, outside first; their sum
            is that of the window's pixels.
        by_columns: Whether runs go down the columns, as COCO's, or along the rows.
    """

    left: int
    top: int
    width: int
    height: int
    counts: npt.NDArray[np.int64]
    by_columns: bool = False

    @classmethod
    def of(cls, pixels: npt.NDArray[np.bool_], left: int = 0, top: int = 0) -> Mask:
        """The mask of the pixels (H, W) of a window."""
        height, width = pixels.shape
        flat = pixels.ravel()
        (changes,) = np.nonzero(flat[1:] != flat[:-1])
        ends = np.concatenate([changes + 1, [flat.size]])
        start = [0] if flat.size and flat[0] else []
        counts = np.diff(np.concatenate([[0], ends])) if flat.size else ends
        return cls(left, top, width, height, np.array([*start, *counts], np.int64))

    def pixels(self) -> npt.NDArray[np.bool_]:
        """(H, W) bool: the pixels of the window that are inside."""
        inside = np.arange(len(self.counts)) % 2 == 1
        flat = np.repeat(inside, self.counts)
        if self.by_columns:
            return flat.reshape(self.width, self.height).T
        return flat.reshape(self.height, self.width)


@dataclass(frozen=True)
class Shape:
    """One annotated object or region: pixels in its polygons, in its mask, or of its segment.

    Attributes:
        name: Name of its category; None for a region whose pixels are ignored.
        polygons: Its parts; holes are not known to any of the formats.
        mask: Its pixels, if it has no polygons.
        segment: The id of its pixels in the image's file of segments, if it has neither.
    """

    name: str | None
    polygons: tuple[Polygon, ...] = ()
    mask: Mask | None = None
    segment: int | None = None


@dataclass(frozen=True)
class AnnotatedImage:
    """The annotations of an image.

    Attributes:
        name: Its path as the annotations spell it, with `/`.
        width: Its width in pixels as the annotations have it; None if they do not say.
        height: Its height.
        shapes: In the order of the file, where later ones lie over earlier ones; None if nobody has
            annotated the image.
        is_relative: Whether coordinates are fractions of the image's width and height.
        is_by_area: Whether smaller shapes lie over larger ones instead, in any order, and ignored
            regions below all.
        segments: Path or address of a PNG of segment ids, if shapes refer to it.
        where: Its place, for errors: "instances.json: image 17".
    """

    name: str
    width: int | None
    height: int | None
    shapes: tuple[Shape, ...] | None
    is_relative: bool = False
    is_by_area: bool = False
    segments: str | None = None
    where: str = ""

    def num_outside(self) -> int:
        """The number of shapes that reach out of the image by more than a pixel, if that is known.

        For relative coordinates a thousandth of the image counts as a pixel.
        """
        if self.is_relative:
            width, height, margin = 1, 1, 0.001
        elif self.width is None or self.height is None:
            return 0
        else:
            width, height, margin = self.width, self.height, 1.0
        return sum(_is_outside(shape, width, height, margin) for shape in self.shapes or ())


def refuse(what: str, where: str, fix: str) -> NoReturn:
    """Raises the error of an annotation."""
    raise DataError(what, where=where, fix=fix)


def polygon(values: Any, where: str) -> Polygon:
    """Checks a list of x and y in turn, numbers or texts of numbers, or of pairs of them.

    Raises:
        DataError: It is none, has fewer than three corners, or its numbers are not finite.
    """
    flat = values
    if isinstance(values, list) and values and isinstance(values[0], list | tuple):
        if any(not isinstance(pair, list | tuple) or len(pair) != 2 for pair in values):
            refuse("its corners are not pairs of x and y", where, "write [[x, y], [x, y], ...]")
        flat = [number for pair in values for number in pair]
    if not isinstance(flat, list | tuple):
        refuse("its points are no list", where, "write x and y of each corner")
    if len(flat) % 2:
        refuse(f"{len(flat)} numbers are no pairs", where, "write x and y of each corner")
    if len(flat) < 6:
        what = f"a polygon of {len(flat) // 2} point{'s'[: len(flat) != 2]}"
        refuse(what, where, "give it at least 3 points, or remove it")
    return numbers(flat, where)


def numbers(values: Sequence[Any], where: str) -> tuple[float, ...]:
    """Checks that values are finite numbers, or texts of them.

    Raises:
        DataError: One is not.
    """
    found = []
    for value in values:
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not abs(number) <= _FARTHEST:
            refuse(f"the coordinate {str(value)[:40]!r}", where, "write a finite number of pixels")
        found.append(number)
    return tuple(found)


def box(left: float, top: float, right: float, bottom: float) -> Polygon:
    """The polygon of a box; its corners may be exchanged."""
    return (left, top, right, top, right, bottom, left, bottom)


def ellipse(x: float, y: float, radius_x: float, radius_y: float) -> Polygon:
    """The polygon of an ellipse with this center."""
    angles = (2 * math.pi * corner / _CORNERS for corner in range(_CORNERS))
    corners = ((x + radius_x * math.cos(a), y + radius_y * math.sin(a)) for a in angles)
    return tuple(number for corner in corners for number in corner)


def turned(corners: Polygon, degrees: float, x: float, y: float) -> Polygon:
    """A polygon turned clockwise around a point."""
    if not degrees:
        return corners
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    found: list[float] = []
    for a, b in zip(corners[::2], corners[1::2], strict=True):
        found += (x + (a - x) * cos - (b - y) * sin, y + (a - x) * sin + (b - y) * cos)
    return tuple(found)


def size(width: Any, height: Any, where: str) -> tuple[int, int]:
    """Checks width and height of an image or a window.

    Raises:
        DataError: They are no whole numbers above 0, or have too many pixels.
    """
    sides = []
    for value in (width, height):
        is_number = isinstance(value, int | float | str) and not isinstance(value, bool)
        try:
            side = int(value) if is_number else 0
            side = side if side == float(value) else 0
        except (TypeError, ValueError, OverflowError):
            side = 0
        sides.append(side)
    if min(sides) < 1:
        what = f"the size {str(width)[:20]} x {str(height)[:20]}"
        refuse(what, where, "write width and height in pixels")
    if sides[0] * sides[1] > MAX_PIXELS:
        what = f"{sides[0]} x {sides[1]} pixels"
        refuse(what, where, f"at most {MAX_PIXELS:,} pixels are read; correct the size")
    return sides[0], sides[1]


def check_counts(counts: npt.NDArray[np.int64], width: int, height: int, where: str) -> None:
    """Checks the run lengths of a mask of this size.

    Raises:
        DataError: One is negative, or they have another sum.
    """
    total = int(counts.sum()) if (counts >= 0).all() and (counts <= MAX_PIXELS).all() else None
    if total != width * height:
        found = "are out of bounds" if total is None else f"cover {total:,} pixels"
        what = f"its run lengths {found}, but {width} x {height} are {width * height:,}"
        refuse(what, where, "export the mask again, in the size of the image")


def _is_outside(shape: Shape, width: int, height: int, margin: float) -> bool:
    if shape.mask is not None:
        right, bottom = shape.mask.left + shape.mask.width, shape.mask.top + shape.mask.height
        return min(shape.mask.left, shape.mask.top) < 0 or right > width or bottom > height
    return any(
        min(part) < -margin or max(part[::2]) > width + margin or max(part[1::2]) > height + margin
        for part in shape.polygons
    )
