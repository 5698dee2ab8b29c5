"""All that is counted of predictions beside the truth, as rows of the manifests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.config.vocabulary import IGNORE
from stages.labels.boundary import BoundaryCounts
from stages.labels.confusion import Confusion

Bytes = npt.NDArray[np.uint8]
Rows = list[dict[str, Any]]
Place = dict[str, Any]
"""The columns that say of what a row is: run, variant, seed, step, split."""


@dataclass
class Scores:
    """Counts of one model on one set of images.

    Attributes:
        class_names: By class id.
        confusion: Of pixels.
        boundaries: Of pixels near outlines.
    """

    class_names: tuple[str, ...]
    confusion: Confusion
    boundaries: BoundaryCounts

    @classmethod
    def empty(cls, class_names: tuple[str, ...]) -> Scores:
        """Nothing counted yet."""
        count = len(class_names)
        return cls(class_names, Confusion.empty(count), BoundaryCounts.empty(count))

    def add(self, truth: Bytes, predicted: Bytes) -> None:
        """Counts one image, both (H, W) class ids; 255 = ignored, and left open."""
        self.confusion.add(truth, predicted)
        self.boundaries.add(truth, predicted)

    def metric_rows(self, place: Place, prefix: str = "") -> Rows:
        """Rows of `metrics`, without IoUs of classes that occur nowhere.

        Without a pixel whose true class is known there is no score: values are null.

        Args:
            place: Of what they are.
            prefix: What names begin with.
        """
        values = {**self.confusion.scores(self.class_names), "boundary_miou": self.boundaries.miou}
        for name, value in zip(self.class_names, self.boundaries.iou, strict=True):
            if not np.isnan(value):
                values[f"boundary_iou/{name}"] = float(value)
        is_known = self.confusion.counts.any()
        return [
            {**place, "name": prefix + key, "value": value if is_known else None}
            for key, value in values.items()
        ]

    def confusion_rows(self, place: Place) -> Rows:
        """Rows of `confusion`."""
        return [*self._cells(place)]

    def _cells(self, place: Place) -> Iterator[dict[str, Any]]:
        columns = [*enumerate(self.class_names), (IGNORE, None)]
        for true_id, true_class in enumerate(self.class_names):
            counts = self.confusion.counts[true_id].tolist()
            for (predicted_id, predicted_class), pixels in zip(columns, counts, strict=True):
                yield {
                    **place,
                    "true_id": true_id,
                    "true_class": true_class,
                    "predicted_id": predicted_id,
                    "predicted_class": predicted_class,
                    "pixels": pixels,
                }
