"""Boundary IoU: how well the outlines of classes are met (Cheng et al. 2021, arXiv 2103.16562)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.config.vocabulary import IGNORE

Bytes = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]

DIAGONAL_SHARE = 0.02
"""Width of a boundary, in diagonals of the image; the authors' value."""


def boundary(mask: Bytes) -> npt.NDArray[np.bool_]:
    """The pixels of each class that are near its outline.

    A pixel is, where the square of 2 d + 1 pixels around it holds another class, or reaches beyond
    the image; d is 2 % of the diagonal, at least 1. That is each class less itself eroded d times
    by a square of 3 pixels, as the authors' code does.

    Args:
        mask: (H, W) uint8 class ids, 255 = none.

    Returns:
        (H, W) bool, False where there is no class.
    """
    distance_px = max(1, round(DIAGONAL_SHARE * float(np.hypot(*mask.shape))))
    # Beyond the image is 255: as a maximum it is another class than any, and there it is enough.
    around = {"size": 2 * distance_px + 1, "mode": "constant", "cval": IGNORE}
    highest = ndimage.maximum_filter(mask, **around)
    lowest = ndimage.minimum_filter(mask, **around)
    return np.asarray((mask != IGNORE) & ((highest != mask) | (lowest != mask)))


@dataclass
class BoundaryCounts:
    """Boundary pixels by class over a set of images.

    Attributes:
        intersection: (C,) int64 pixels on the boundary of a class in truth and prediction.
        truth: (C,) int64 pixels on its boundary in the truth.
        predicted: (C,) int64 pixels on its boundary in the prediction.
    """

    intersection: Counts
    truth: Counts
    predicted: Counts

    @classmethod
    def empty(cls, num_classes: int) -> BoundaryCounts:
        """Nothing counted yet."""
        return cls(*(np.zeros(num_classes, np.int64) for _ in range(3)))

    def add(self, truth: Bytes, predicted: Bytes) -> None:
        """Counts the boundaries of one image.

        Where the truth is 255 both have no class, as in the IoU; so an outline towards such pixels
        is in both.

        Args:
            truth: (H, W) class ids, 255 = ignore.
            predicted: (H, W) class ids, 255 = open.
        """
        predicted = np.where(truth == IGNORE, np.uint8(IGNORE), predicted)
        of_truth, of_predicted = boundary(truth), boundary(predicted)
        both = of_truth & of_predicted & (truth == predicted)
        for counts, pixels in (
            (self.intersection, truth[both]),
            (self.truth, truth[of_truth]),
            (self.predicted, predicted[of_predicted]),
        ):
            counts += np.bincount(pixels, minlength=len(counts))

    @property
    def iou(self) -> npt.NDArray[np.float64]:
        """(C,) boundary IoU, 0 to 1; NaN for a class that occurs nowhere."""
        union = self.truth + self.predicted - self.intersection
        with np.errstate(invalid="ignore"):
            return np.asarray(self.intersection / union)

    @property
    def miou(self) -> float:
        """Mean boundary IoU over the classes that occur in truth or prediction; 0 without any."""
        occurs = self.iou[~np.isnan(self.iou)]
        return float(occurs.mean()) if len(occurs) else 0.0
