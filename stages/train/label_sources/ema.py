"""The mean teacher labels the strong views (ClassMix, UniMatch V2 arXiv 2410.10777)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.train.label_sources.base import Asked, LabelSource, LabelSourceConfig, Threshold

if TYPE_CHECKING:
    from stages.pseudolabel.pseudo_labels import PseudoLabels
    from stages.train.batch import CropBatch


class EmaConfig(LabelSourceConfig):
    """Keys of an EMA label source."""

    threshold: Threshold = 0.95
    """Confidence that a pixel needs to count."""


class EmaSource(LabelSource):
    """Pixels where the student's moving average is confident count fully, others not at all.

    It is always in eval mode: its labels depend neither on the rest of the batch nor on dropout.
    """

    Config = EmaConfig
    version = 1
    config: EmaConfig

    @property
    def student_threshold(self) -> float:
        """See `LabelSource.student_threshold`."""
        return self.config.threshold

    @property
    def asks(self) -> Asked:
        """See `LabelSource.asks`."""
        return "teacher"

    def label(self, images: CropBatch, seen: PseudoLabels) -> PseudoLabels:
        """See `LabelSource.label`."""
        return seen.confident(self.config.threshold)
