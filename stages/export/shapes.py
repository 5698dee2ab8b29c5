"""Regions of a mask as runs and polygons, exact to the pixel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco
from scipy import ndimage

from pipeline.config.vocabulary import IGNORE

Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Points = npt.NDArray[np.int64]
_CORNERS = np.ones((3, 3), dtype=bool)


class Region(NamedTuple):
    """The connected pixels of one class; pixels that share a corner are connected.

    Attributes:
        class_id: The class.
        top: First row.
        left: First column.
        pixels: (h, w) bool, within the box that starts at (top, left).
    """

    class_id: int
    top: int
    left: int
    pixels: Bools

    def whole(self, height: int, width: int) -> Bools:
        """The pixels in the whole image, (height, width) bool."""
        found = np.zeros((height, width), dtype=bool)
        h, w = self.pixels.shape
        found[self.top : self.top + h, self.left : self.left + w] = self.pixels
        return found


def regions(mask: Bytes, background: int) -> Iterator[Region]:
    """The regions of all classes but the background and ignored pixels, by class and position.

    Args:
        mask: (H, W) uint8 class ids, 255 = ignore.
        background: Id of the background, or 255.
    """
    for class_id in np.unique(mask).tolist():
        if class_id in (background, IGNORE):
            continue
        labeled, _ = ndimage.label(mask == class_id, _CORNERS)
        for number, box in enumerate(ndimage.find_objects(labeled), start=1):
            rows, columns = box
            yield Region(class_id, rows.start, columns.start, labeled[box] == number)


def run_lengths(pixels: Bools) -> dict[str, Any]:
    """Pixels (H, W) as COCO's compressed run lengths."""
    found = coco.encode(np.asfortranarray(pixels.astype(np.uint8)))
    return {"size": [int(side) for side in found["size"]], "counts": found["counts"].decode()}


def polygon(region: Region) -> Points:
    """A region as one polygon (N, 2) of x, y through the middles of its border pixels.

    Filled with its border (OpenCV, Pillow) it gives the region's pixels. A hole is joined to the
    outer border by a line there and back.
    """
    import cv2

    found, levels = cv2.findContours(
        region.pixels.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
    )
    contours = [each[:, 0].astype(np.int64) for each in found]
    outer = next(index for index, level in enumerate(levels[0]) if level[3] < 0)
    joined = contours.pop(outer)
    while contours:
        pairs = [_nearest(joined, each) for each in contours]
        index = int(np.argmin([distance for distance, _, _ in pairs]))
        _, here, there = pairs[index]
        hole = np.roll(contours.pop(index), -there, axis=0)
        joined = np.concatenate([joined[: here + 1], hole, hole[:1], joined[here:]])
    moved: Points = joined + np.array([region.left, region.top])
    return moved


def _nearest(one: Points, other: Points) -> tuple[int, int, int]:
    """The least squared distance of two contours, and the indices of the points that have it."""
    from scipy.spatial import cKDTree

    distances, indices = cKDTree(other).query(one)
    here = int(np.argmin(distances))
    return round(distances[here] ** 2), here, int(indices[here])
