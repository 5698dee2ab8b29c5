"""The student's own weak view labels its strong views (FixMatch, UniMatch)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.train.online_source import OnlineConfig, OnlineSource

if TYPE_CHECKING:
    from stages.pseudolabel.pseudo_labels import PseudoLabels
    from stages.train.batch import TrainBatch
    from stages.train.sight import Sight


class StudentSource(OnlineSource):
    """What the network in training sees."""

    Config = OnlineConfig
    version = 2

    def label(self, batch: TrainBatch, key: str, sight: Sight) -> PseudoLabels:
        """See `LabelSource.label`."""
        return sight.of("student", key)
