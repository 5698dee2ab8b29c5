"""The student's own weak view labels its strong views (FixMatch, UniMatch)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.train.label_sources.base import LabelSource, LabelSourceConfig, Threshold

if TYPE_CHECKING:
    from stages.pseudolabel.pseudo_labels import PseudoLabels
    from stages.train.batch import CropBatch


class StudentConfig(LabelSourceConfig):
    """Keys of a student label source."""

    threshold: Threshold = 0.95
    """Confidence that a pixel needs to count."""


class StudentSource(LabelSource):
    """Pixels where the student is confident count fully, others not at all."""

    Config = StudentConfig
    version = 1
    config: StudentConfig

    @property
    def student_threshold(self) -> float:
        """See `LabelSource.student_threshold`."""
        return self.config.threshold

    def label(self, images: CropBatch, seen: PseudoLabels) -> PseudoLabels:
        """See `LabelSource.label`."""
        return seen.confident(self.config.threshold)
