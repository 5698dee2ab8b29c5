"""The mean teacher labels the strong views (ClassMix, UniMatch V2 arXiv 2410.10777)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.train.step.label_sources._online import OnlineConfig, OnlineSource

if TYPE_CHECKING:
    from stages.labels.pseudo_labels import PseudoLabels
    from stages.train.data.batch import TrainBatch
    from stages.train.step.weak_predictions import WeakPredictions


class EmaSource(OnlineSource):
    """Labels by the student's moving average.

    It is always in eval mode: its labels depend neither on the rest of the batch nor on dropout.
    """

    Config = OnlineConfig
    version = 2

    def label(self, batch: TrainBatch, key: str, weak: WeakPredictions) -> PseudoLabels:
        """See `LabelSource.label`."""
        return weak.of("ema", key)
