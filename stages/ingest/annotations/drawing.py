"""Draws the shapes of an image as class ids."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.files import file_stamps
from stages.ingest.annotations.shapes import AnnotatedImage, Mask, Polygon, Shape

VERSION = 1
"""Raised when the same shapes give other pixels than before."""


def draw(
    image: AnnotatedImage,
    class_ids: Sequence[int],
    rest: int,
    width: int,
    height: int,
    segments: npt.NDArray[np.integer] | None = None,
) -> npt.NDArray[np.uint8]:
    """Draws an image's shapes; what reaches out of the image is cut off.

    Polygons are filled as pycocotools fills them, so COCO's annotations have the pixels that
    `annToMask` gives.

    Args:
        image: The image; its shapes were annotated.
        class_ids: The mask value of each shape.
        rest: The mask value of pixels in no shape.
        width: Width of the image, equal to that of the annotations if these have one.
        height: Its height.
        segments: (height, width) segment ids, if shapes refer to them.

    Returns:
        (height, width) uint8 mask.
    """
    shapes = image.shapes or ()
    labels = np.full((height, width), rest, np.uint8)
    if segments is not None:
        for shape, class_id in zip(shapes, class_ids, strict=True):
            labels[segments == shape.segment] = class_id
        return labels
    if image.is_relative:
        shapes = tuple(_scaled(shape, width, height) for shape in shapes)
    regions = [_region(shape, width, height) for shape in shapes]
    order = [*range(len(shapes))]
    if image.is_by_area:
        order.sort(key=lambda n: (shapes[n].name is not None, -regions[n].area))
    for number in order:
        region = regions[number]
        labels[region.rows, region.columns][region.pixels()] = class_ids[number]
    return labels


def digest(image: AnnotatedImage, class_ids: Sequence[int], rest: int) -> str:
    """The SHA-256 of all that `draw` takes, 64 hex digits; of segments, the file's stamp."""
    found = hashlib.sha256()
    about = (VERSION, image.width, image.height, image.is_relative, image.is_by_area, rest)
    found.update(repr(about).encode())
    if image.segments is not None:
        found.update(repr((image.segments, file_stamps.stamp(image.segments))).encode())
    for shape, class_id in zip(image.shapes or (), class_ids, strict=True):
        found.update(repr((class_id, shape.name is None, shape.polygons, shape.segment)).encode())
        if (mask := shape.mask) is not None:
            window = (mask.left, mask.top, mask.width, mask.height, mask.by_columns)
            found.update(repr((window, len(mask.counts))).encode())
            found.update(mask.counts.astype("<i8").tobytes())
    return found.hexdigest()


def _scaled(shape: Shape, width: int, height: int) -> Shape:
    """A shape in fractions of the image, in pixels."""
    polygons = tuple(
        tuple(n * (height if place % 2 else width) for place, n in enumerate(part))
        for part in shape.polygons
    )
    return Shape(shape.name, polygons)


@dataclass(frozen=True)
class _Region:
    """The part of a shape in the image.

    Attributes:
        rows: The rows of a window.
        columns: Its columns.
        area: Pixels that are inside.
        pixels: Gives these, (rows, columns) bool.
    """

    rows: slice
    columns: slice
    area: int
    pixels: Callable[[], npt.NDArray[np.bool_]]


def _region(shape: Shape, width: int, height: int) -> _Region:
    if shape.mask is not None:
        return _region_of_mask(shape.mask, width, height)
    from pycocotools import mask as coco  # only a run that draws needs it

    inside = (_clipped(part, width, height) for part in shape.polygons)
    if not (parts := [[*part] for part in inside if part]):
        return _Region(slice(0), slice(0), 0, lambda: np.zeros((0, 0), np.bool_))
    runs = coco.merge(coco.frPyObjects(parts, height, width))
    return _Region(
        slice(height), slice(width), int(coco.area(runs)), lambda: coco.decode(runs).view(np.bool_)
    )


def _region_of_mask(mask: Mask, width: int, height: int) -> _Region:
    left, top = min(max(mask.left, 0), width), min(max(mask.top, 0), height)
    right, bottom = (
        max(left, min(mask.left + mask.width, width)),
        max(top, min(mask.top + mask.height, height)),
    )

    def pixels() -> npt.NDArray[np.bool_]:
        rows = slice(top - mask.top, bottom - mask.top)
        return mask.pixels()[rows, left - mask.left : right - mask.left]

    area = int(mask.counts[1::2].sum())
    return _Region(slice(top, bottom), slice(left, right), area, pixels)


def _clipped(polygon: Polygon, width: int, height: int) -> Polygon:
    """The part of a polygon in the image; empty if there is none.

    By Sutherland and Hodgman: where a concave polygon falls apart, its parts stay connected by
    edges along the border, which enclose no pixel. pycocotools takes memory for each pixel that an
    edge passes, wherever it is.
    """
    corners = [*zip(polygon[::2], polygon[1::2], strict=True)]
    for axis, limit, sign in ((0, 0, 1), (0, width, -1), (1, 0, 1), (1, height, -1)):
        distances = [sign * (corner[axis] - limit) for corner in corners]
        if all(distance >= 0 for distance in distances):
            continue
        kept: list[tuple[float, float]] = []
        for number, (corner, distance) in enumerate(zip(corners, distances, strict=True)):
            before, was = corners[number - 1], distances[number - 1]
            if (distance < 0) != (was < 0):
                share = was / (was - distance)
                x = before[0] + share * (corner[0] - before[0])
                y = before[1] + share * (corner[1] - before[1])
                kept.append((x, y))
            if distance >= 0:
                kept.append(corner)
        corners = kept
    return tuple(number for corner in corners for number in corner) if len(corners) > 2 else ()
