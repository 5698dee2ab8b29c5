"""Fills small holes of masks and removes small islands."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Mask = npt.NDArray[np.bool_]
_NEIGHBOURS = np.ones((3, 3), dtype=bool)  # pixels that share a corner are connected


def remove_small_regions(mask: Mask, min_area: int) -> tuple[Mask, bool]:
    """Fills holes, then removes islands, with fewer than `min_area` pixels.

    Equals segment_anything's `remove_small_regions` for holes and then for islands. Background at
    the edge of the image is a hole, too. If all islands are too small, the largest one stays.

    Args:
        mask: (H, W) bool.
        min_area: Smallest region that stays, in pixels.

    Returns:
        The new mask, and whether it differs from the old one.
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
    """Regions numbered from 1 (0 = no region), and sizes by number; the size of 0 is not used."""
    regions, count = ndimage.label(mask, _NEIGHBOURS)
    return regions, np.bincount(regions.ravel(), minlength=count + 1)


def _first_largest(regions: npt.NDArray[np.int32], sizes: npt.NDArray[np.int64]) -> int:
    """The largest region; of several the one that OpenCV, scanning 2 x 2 blocks, numbers first."""
    largest = 1 + np.flatnonzero(sizes[1:] == sizes[1:].max())
    rows, columns = np.nonzero(np.isin(regions, largest))
    first = np.lexsort((columns // 2, rows // 2))[0]
    return int(regions[rows[first], columns[first]])
