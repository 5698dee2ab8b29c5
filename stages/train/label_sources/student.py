"""The student's own weak view labels its strong views (FixMatch, UniMatch)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.train.label_sources.base import LabelSource, LabelSourceConfig

if TYPE_CHECKING:
    from stages.pseudolabel.pseudo_labels import PseudoLabels
    from stages.train.batch import CropBatch


class StudentSource(LabelSource):
    """Pixels where the student is confident count fully, others not at all."""

    Config = LabelSourceConfig
    version = 1

    def label(self, images: CropBatch, student: PseudoLabels) -> PseudoLabels:
        """See `LabelSource.label`."""
        return student.confident(self.config.threshold)
