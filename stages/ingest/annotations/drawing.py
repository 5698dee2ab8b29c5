"""Draws the shapes of an image as class ids."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stages.ingest.annotations.shapes import AnnotatedImage, Mask, Polygon, Shape

VERSION = 1
"""Raised when the same shapes give other pixels than before."""


def draw(
    image: AnnotatedImage, class_ids: Sequence[int], rest: int, width: int, height: int
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

    Returns:
        (height, width) uint8 mask.
    """
    labels = np.full((height, width), rest, np.uint8)
    if image.is_relative:
        shapes = [_scaled(shape, width, height) for shape in image.shapes or ()]
    else:
        shapes = [*(image.shapes or ())]
    if not image.is_by_area:
        for shape, class_id in zip(shapes, class_ids, strict=True):
            labels[_pixels(shape, width, height)] = class_id
        return labels
    # What lies above was drawn before: so the smallest shape comes first, and needs no second pass.
    areas = [int(_pixels(shape, width, height).sum()) for shape in shapes]
    order = sorted(range(len(shapes)), key=lambda n: (shapes[n].name is None, areas[n], -n))
    is_free = np.ones((height, width), np.bool_)
    for number in order:
        pixels = _pixels(shapes[number], width, height) & is_free
        labels[pixels] = class_ids[number]
        is_free &= ~pixels
    return labels


def digest(image: AnnotatedImage, class_ids: Sequence[int], rest: int) -> str:
    """The SHA-256 of all that `draw` takes, 64 hex digits."""
    found = hashlib.sha256()
    about = (VERSION, image.width, image.height, image.is_relative, image.is_by_area, rest)
    found.update(repr(about).encode())
    for shape, class_id in zip(image.shapes or (), class_ids, strict=True):
        found.update(repr((class_id, shape.name is None, shape.polygons)).encode())
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


def _pixels(shape: Shape, width: int, height: int) -> npt.NDArray[np.bool_]:
    """(height, width) bool: the pixels of a shape that are in the image."""
    if shape.mask is not None:
        return _in_image(shape.mask, width, height)
    from pycocotools import mask as coco  # only a run that draws needs it

    inside = (_clipped(part, width, height) for part in shape.polygons)
    parts = [[*part] for part in inside if part]
    if not parts:
        return np.zeros((height, width), np.bool_)
    found: npt.NDArray[np.uint8] = coco.decode(coco.merge(coco.frPyObjects(parts, height, width)))
    return found.astype(np.bool_)


def _in_image(mask: Mask, width: int, height: int) -> npt.NDArray[np.bool_]:
    found = np.zeros((height, width), np.bool_)
    left, top = max(mask.left, 0), max(mask.top, 0)
    right, bottom = min(mask.left + mask.width, width), min(mask.top + mask.height, height)
    if left < right and top < bottom:
        window = mask.pixels()
        rows = slice(top - mask.top, bottom - mask.top)
        found[top:bottom, left:right] = window[rows, left - mask.left : right - mask.left]
    return found


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
