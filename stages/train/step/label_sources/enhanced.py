"""Stored labels, replaced where the student is confident (SAM+CLIP, arXiv 2505.19846)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from stages.train.step.label_sources._stored import StoredLabelConfig, StoredLabelSource

if TYPE_CHECKING:
    from torch import Tensor

    from stages.labels.pseudo_labels import PseudoLabels
    from stages.train.data.batch import TrainBatch
    from stages.train.step.weak_predictions import WeakPredictions


class EnhancedConfig(StoredLabelConfig):
    """Keys of the source `enhanced`."""

    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Label smoothing: share of the target that is spread evenly over all classes."""


class EnhancedSource(StoredLabelSource):
    """Takes the student's class where it is confident, else the stored one.

    The paper does not give the rule in this detail; it is our choice. Confident predictions have
    weight 1, stored labels their confidence.
    """

    Config = EnhancedConfig
    version = 1
    config: EnhancedConfig

    def label(self, batch: TrainBatch, key: str, weak: WeakPredictions) -> PseudoLabels:
        """See `LabelSource.label`."""
        sure = weak.of(self.network, key).confident(self.config.student_threshold)
        return self.read(batch, key, weak).pasted(sure, sure.confidence > 0)

    def loss(self, logits: Tensor, labels: PseudoLabels, valid: Tensor) -> Tensor:
        """See `LabelSource.loss`."""
        from stages.train.step.losses import pseudo_label_loss

        weights = self.weigh(labels, valid)
        return pseudo_label_loss(logits, labels.mask, weights, valid, self.config.smoothing)
