"""Mending masks: small holes filled, small islands removed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Mask = npt.NDArray[np.bool_]
_NEIGHBOURS = np.ones((3, 3), dtype=bool)  # corners touch, too


def mend(mask: Mask, min_area: int) -> tuple[Mask, bool]:
    """Fills holes, then removes islands, of fewer than so many pixels.

    The same as segment_anything's `remove_small_regions` for holes and then for islands; what is
    background at the edge of the image is a hole as well. Of islands that are all too small the
    largest stays.

    Returns:
        The mask, and whether it is another one now.
    """
    holes, sizes = _regions(~mask)
    small = sizes < min_area
    small[0] = False
    filled = mask | small[holes]
    islands, sizes = _regions(filled)
    large = sizes >= min_area
    large[0] = False
    if large[1:].all():
        return filled, bool(small.any())
    if not large.any():
        large[_first_largest(islands, sizes)] = True
    return large[islands], True


def _regions(mask: Mask) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Regions numbered from 1, 0 elsewhere, and their sizes by number; that of 0 means nothing."""
    regions, count = ndimage.label(mask, _NEIGHBOURS)
    return regions, np.bincount(regions.ravel(), minlength=count + 1)


def _first_largest(regions: npt.NDArray[np.int32], sizes: npt.NDArray[np.int64]) -> int:
    """Of the largest regions the one that OpenCV numbers first: it scans 2 x 2 pixels at a time."""
    largest = 1 + np.flatnonzero(sizes[1:] == sizes[1:].max())
    rows, columns = np.nonzero(np.isin(regions, largest))
    first = np.lexsort((columns // 2, rows // 2))[0]
    return int(regions[rows[first], columns[first]])
