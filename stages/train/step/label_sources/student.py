"""The student's own weak view labels its strong views (FixMatch, UniMatch)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.train.step.label_sources._online import OnlineConfig, OnlineSource

if TYPE_CHECKING:
    from stages.labels.pseudo_labels import PseudoLabels
    from stages.train.data.batch import TrainBatch
    from stages.train.step.weak_predictions import WeakPredictions


class StudentSource(OnlineSource):
    """Labels by the network in training."""

    Config = OnlineConfig
    version = 2

    def label(self, batch: TrainBatch, key: str, weak: WeakPredictions) -> PseudoLabels:
        """See `LabelSource.label`."""
        return weak.of("student", key)
