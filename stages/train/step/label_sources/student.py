"""The student's own weak view labels its strong views (FixMatch, UniMatch)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.train.step.label_sources._online import OnlineConfig, OnlineSource

if TYPE_CHECKING:
    from stages.labels.pseudo_labels import PseudoLabels
    from stages.train.data.batch import TrainBatch
    from stages.train.step.weak_predictions import Sight


class StudentSource(OnlineSource):
    """What the network in training sees."""

    Config = OnlineConfig
    version = 2

    def label(self, batch: TrainBatch, key: str, sight: Sight) -> PseudoLabels:
        """See `LabelSource.label`."""
        return sight.of("student", key)
