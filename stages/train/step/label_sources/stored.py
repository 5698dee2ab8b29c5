"""The labels of stage one (SemiOVS, arXiv 2507.03302), weighed by their stored confidence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from stages.train.step.label_sources._stored import ReadingConfig, ReadingSource

if TYPE_CHECKING:
    from stages.labels.pseudo_labels import PseudoLabels
    from stages.train.data.batch import TrainBatch
    from stages.train.step.weak_predictions import Sight


class StoredConfig(ReadingConfig):
    """Keys of a stored label source."""

    on: Literal["unlabeled", "ood"] = "ood"
    """Role of the images it labels."""


class StoredSource(ReadingSource):
    """Fixed labels from the store; the student labels what is pasted in from another role."""

    Config = StoredConfig
    version = 2
    config: StoredConfig

    def label(self, batch: TrainBatch, key: str, sight: Sight) -> PseudoLabels:
        """See `LabelSource.label`."""
        return self.read(batch, key, sight)
