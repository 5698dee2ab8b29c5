"""Stored labels, overruled by the student where it is sure (SAM+CLIP, arXiv 2505.19846)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from stages.train.step.label_sources._stored import ReadingConfig, ReadingSource

if TYPE_CHECKING:
    from torch import Tensor

    from stages.labels.pseudo_labels import PseudoLabels
    from stages.train.data.batch import TrainBatch
    from stages.train.step.weak_predictions import Sight


class EnhancedConfig(ReadingConfig):
    """Keys of the source `enhanced`."""

    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of a target that all classes divide evenly (label smoothing)."""


class EnhancedSource(ReadingSource):
    """A pixel is what the student sees there if it is sure, else what the store says.

    The paper's rule was not readable to this depth: this is our completion. The student counts
    fully where it is heard, the store by its confidence elsewhere.
    """

    Config = EnhancedConfig
    version = 1
    config: EnhancedConfig

    def label(self, batch: TrainBatch, key: str, sight: Sight) -> PseudoLabels:
        """See `LabelSource.label`."""
        sure = sight.of(self.observer, key).confident(self.config.student_threshold)
        return self.read(batch, key, sight).pasted(sure, sure.confidence > 0)

    def loss(self, logits: Tensor, labels: PseudoLabels, valid: Tensor) -> Tensor:
        """See `LabelSource.loss`."""
        from stages.train.step.losses import pseudo_label_loss

        weights = self.weigh(labels, valid)
        return pseudo_label_loss(logits, labels.mask, weights, valid, self.config.smoothing)
