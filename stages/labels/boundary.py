"""Boundary IoU, a score of the outlines of classes (Cheng et al. 2021, arXiv 2103.16562)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.config.vocabulary import IGNORE

Bytes = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]

DIAGONAL_SHARE = 0.02
"""Width of a boundary as a share of the image diagonal; the authors' value."""


def boundary(mask: Bytes) -> npt.NDArray[np.bool_]:
    """Finds the pixels of each class that are near its outline.

    A pixel is near it if the square of 2 d + 1 pixels around it contains another class, or reaches
    beyond the image; d is 2 % of the diagonal, at least 1. The result is that of the authors' code:
    each class minus its erosion, d times by a square of 3 pixels.

    Args:
        mask: (H, W) uint8 class ids, 255 = no class.

    Returns:
        (H, W) bool, False where there is no class.
    """
    distance_px = max(1, round(DIAGONAL_SHARE * float(np.hypot(*mask.shape))))
    # Pixels beyond the image are 255, so their maximum differs from every class.
    around = {"size": 2 * distance_px + 1, "mode": "constant", "cval": IGNORE}
    highest = ndimage.maximum_filter(mask, **around)
    lowest = ndimage.minimum_filter(mask, **around)
    return np.asarray((mask != IGNORE) & ((highest != mask) | (lowest != mask)))


@dataclass
class BoundaryCounts:
    """Counts of boundary pixels by class over a set of images.

    Attributes:
        intersection: (C,) int64 pixels on the boundary of the class in truth and prediction.
        truth: (C,) int64 pixels on the boundary in the truth.
        predicted: (C,) int64 pixels on the boundary in the prediction.
    """

    intersection: Counts
    truth: Counts
    predicted: Counts

    @classmethod
    def empty(cls, num_classes: int) -> BoundaryCounts:
        """Counts of no images."""
        return cls(*(np.zeros(num_classes, np.int64) for _ in range(3)))

    def add(self, truth: Bytes, predicted: Bytes) -> None:
        """Adds the boundaries of one image.

        Pixels that are 255 in the truth are ignored in the prediction too, as in the IoU; so truth
        and prediction share the outlines next to such pixels.

        Args:
            truth: (H, W) uint8 class ids, 255 = ignore.
            predicted: (H, W) uint8 class ids, 255 = no prediction.
        """
        predicted = np.where(truth == IGNORE, np.uint8(IGNORE), predicted)
        near_truth, near_predicted = boundary(truth), boundary(predicted)
        both = near_truth & near_predicted & (truth == predicted)
        for counts, pixels in (
            (self.intersection, truth[both]),
            (self.truth, truth[near_truth]),
            (self.predicted, predicted[near_predicted]),
        ):
            counts += np.bincount(pixels, minlength=len(counts))

    @property
    def iou(self) -> npt.NDArray[np.float64]:
        """(C,) boundary IoU, 0 to 1; NaN for a class that does not occur."""
        union = self.truth + self.predicted - self.intersection
        with np.errstate(invalid="ignore"):
            return np.asarray(self.intersection / union)

    @property
    def miou(self) -> float:
        """Mean boundary IoU over the classes in truth or prediction; 0 if there are none."""
        occurs = self.iou[~np.isnan(self.iou)]
        return float(occurs.mean()) if len(occurs) else 0.0
