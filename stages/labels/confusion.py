"""Confusion matrices, and the scores computed from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.config.vocabulary import IGNORE

Counts = npt.NDArray[np.int64]


@dataclass
class Confusion:
    """A confusion matrix over a set of images. Without a true class there is no score, but None.

    Attributes:
        counts: (C, C + 1) int64; row = true class, column = predicted class, last column = no
            prediction (255).
    """

    counts: Counts

    @classmethod
    def empty(cls, num_classes: int) -> Confusion:
        """The matrix of no images."""
        return cls(np.zeros((num_classes, num_classes + 1), np.int64))

    def add(self, truth: npt.NDArray[np.uint8], predicted: npt.NDArray[np.uint8]) -> None:
        """Adds the pixels of one image, except those that are 255 in the truth.

        Args:
            truth: (H, W) uint8 class ids, 255 = ignore.
            predicted: (H, W) uint8 class ids; 255 = no prediction, which counts as wrong.
        """
        rows, columns = self.counts.shape
        known = truth != IGNORE
        found = np.where(predicted == IGNORE, columns - 1, predicted)[known].astype(np.int64)
        cells = truth[known].astype(np.int64) * columns + found
        self.counts += np.bincount(cells, minlength=rows * columns).reshape(rows, columns)

    @property
    def iou(self) -> npt.NDArray[np.float64]:
        """(C,) intersection over union, 0 to 1; 0 for a class that does not occur."""
        square = self.counts[:, :-1]
        intersection = np.diag(square)
        union = self.counts.sum(axis=1) + square.sum(axis=0) - intersection
        return np.asarray(intersection / np.maximum(union, 1))

    @property
    def occurs(self) -> npt.NDArray[np.bool_]:
        """(C,) bool, True for classes that occur in truth or prediction."""
        return np.asarray(self.counts.sum(axis=1) + self.counts[:, :-1].sum(axis=0) > 0)

    @property
    def miou(self) -> float | None:
        """Mean IoU over all classes; absent ones count as 0, as in UniMatch and its successors."""
        return float(self.iou.mean()) if self.counts.any() else None

    @property
    def nan_miou(self) -> float | None:
        """Mean IoU over the classes in truth or prediction."""
        return float(self.iou[self.occurs].mean()) if self.counts.any() else None

    @property
    def pixel_accuracy(self) -> float | None:
        """Share of pixels with a true class whose prediction is right."""
        return self._share(np.trace(self.counts[:, :-1]))

    @property
    def coverage(self) -> float | None:
        """Share of pixels with a true class that have a prediction."""
        return self._share(self.counts[:, :-1].sum())

    def _share(self, pixels: np.integer) -> float | None:
        return float(pixels / self.counts.sum()) if self.counts.any() else None

    def scores(self, class_names: tuple[str, ...]) -> dict[str, float | None]:
        """All scores by their names in the metrics manifest, without the IoU of absent classes."""
        each = zip(class_names, self.iou, self.occurs, strict=True)
        per_class = {f"iou/{name}": float(iou) for name, iou, occurs in each if occurs}
        means = {"miou": self.miou, "nan_miou": self.nan_miou}
        return {**means, "pixel_accuracy": self.pixel_accuracy, **per_class}
