"""The stored labels of stage one (SemiOVS, arXiv 2507.03302)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from stages.train.step.label_sources._stored import StoredLabelConfig, StoredLabelSource

if TYPE_CHECKING:
    from stages.labels.pseudo_labels import PseudoLabels
    from stages.train.data.batch import TrainBatch
    from stages.train.step.weak_predictions import WeakPredictions


class StoredConfig(StoredLabelConfig):
    """Keys of a stored label source."""

    on: Literal["unlabeled", "ood"] = "ood"
    """Role of the images it labels."""


class StoredSource(StoredLabelSource):
    """Stored labels; a network labels pixels pasted from another role."""

    Config = StoredConfig
    version = 2
    config: StoredConfig

    def label(self, batch: TrainBatch, key: str, weak: WeakPredictions) -> PseudoLabels:
        """See `LabelSource.label`."""
        return self.read(batch, key, weak)
