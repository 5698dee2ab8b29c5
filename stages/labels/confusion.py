"""Counts of true against predicted classes, and the scores that follow from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.config.vocabulary import IGNORE

Counts = npt.NDArray[np.int64]


@dataclass
class Confusion:
    """A confusion matrix over a set of images.

    Attributes:
        counts: (C, C + 1) int64; row = true class, column = predicted class, the last one for
            pixels that the prediction leaves open (255).
    """

    counts: Counts

    @classmethod
    def empty(cls, num_classes: int) -> Confusion:
        """Nothing counted yet."""
        return cls(np.zeros((num_classes, num_classes + 1), np.int64))

    def add(self, truth: npt.NDArray[np.uint8], predicted: npt.NDArray[np.uint8]) -> None:
        """Counts the pixels of one image; where the truth is 255 nothing counts.

        Args:
            truth: (H, W) class ids, 255 = ignore.
            predicted: (H, W) class ids, 255 = open: wrong wherever the truth has a class.
        """
        rows, columns = self.counts.shape
        known = truth != IGNORE
        found = np.where(predicted == IGNORE, columns - 1, predicted)[known].astype(np.int64)
        cells = truth[known].astype(np.int64) * columns + found
        self.counts += np.bincount(cells, minlength=rows * columns).reshape(rows, columns)

    @property
    def iou(self) -> npt.NDArray[np.float64]:
        """(C,) intersection over union, 0 to 1; 0 for a class that occurs nowhere."""
        square = self.counts[:, :-1]
        intersection = np.diag(square)
        union = self.counts.sum(axis=1) + square.sum(axis=0) - intersection
        return np.asarray(intersection / np.maximum(union, 1))

    @property
    def occurs(self) -> npt.NDArray[np.bool_]:
        """(C,) bool: the classes that occur in truth or prediction."""
        return np.asarray(self.counts.sum(axis=1) + self.counts[:, :-1].sum(axis=0) > 0)

    @property
    def miou(self) -> float:
        """Mean IoU over all classes; absent ones count 0, as UniMatch and its successors do."""
        return float(self.iou.mean())

    @property
    def nan_miou(self) -> float:
        """Mean IoU over the classes that occur in truth or prediction; 0 without any."""
        occurs = self.occurs
        return float(self.iou[occurs].mean()) if occurs.any() else 0.0

    @property
    def pixel_accuracy(self) -> float:
        """Share of pixels with a true class that are predicted right."""
        return float(np.trace(self.counts[:, :-1]) / max(1, self.counts.sum()))

    def scores(self, class_names: tuple[str, ...]) -> dict[str, float]:
        """All scores by their names in the metrics manifest, without IoUs of absent classes."""
        each = zip(class_names, self.iou, self.occurs, strict=True)
        per_class = {f"iou/{name}": float(iou) for name, iou, occurs in each if occurs}
        means = {"miou": self.miou, "nan_miou": self.nan_miou}
        return {**means, "pixel_accuracy": self.pixel_accuracy, **per_class}
