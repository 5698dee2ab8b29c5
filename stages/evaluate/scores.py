"""Counts of predicted against true classes, as rows of the manifests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from pipeline.config.vocabulary import IGNORE
from pipeline.records.rows import ConfusionRow, MetricRow
from stages.evaluate.score_key import ScoreKey
from stages.labels.boundary import BoundaryCounts
from stages.labels.confusion import Confusion

Bytes = npt.NDArray[np.uint8]


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

    def metric_rows(
        self, run: str, key: ScoreKey, step: int | None, prefix: str = ""
    ) -> list[MetricRow]:
        """Rows of `metrics`, without IoUs of classes that occur nowhere.

        If no pixel has a known true class there is no score: values are null.

        Args:
            run: Name of the run.
            key: What was scored, on which images.
            step: Training steps of the weights; None for a labeler.
            prefix: Prefix of the names of scores.
        """
        is_known = self.confusion.counts.any()
        values = self.confusion.scores(self.class_names)
        values["boundary_miou"] = self.boundaries.miou if is_known else None
        for name, value in zip(self.class_names, self.boundaries.iou, strict=True):
            if not np.isnan(value):
                values[f"boundary_iou/{name}"] = float(value)
        return [
            {
                **_place(run, key, step),
                "epoch": None,
                "name": prefix + name,
                "value": value,
            }
            for name, value in values.items()
        ]

    def confusion_rows(self, run: str, key: ScoreKey, step: int | None) -> list[ConfusionRow]:
        """Rows of `confusion`; see `metric_rows`."""
        columns = [*enumerate(self.class_names), (IGNORE, None)]
        return [
            {
                **_place(run, key, step),
                "true_id": true_id,
                "true_class": true_class,
                "predicted_id": predicted_id,
                "predicted_class": predicted_class,
                "pixels": pixels,
            }
            for true_id, true_class in enumerate(self.class_names)
            for (predicted_id, predicted_class), pixels in zip(
                columns, self.confusion.counts[true_id].tolist(), strict=True
            )
        ]


class _Place(TypedDict):
    """The columns of both manifests that say what was scored."""

    run: str
    kind: str
    variant: str
    seed: int | None
    step: int | None
    split: str


def _place(run: str, key: ScoreKey, step: int | None) -> _Place:
    return {
        "run": run,
        "kind": key.kind,
        "variant": key.name,
        "seed": key.seed,
        "step": step,
        "split": key.split,
    }
