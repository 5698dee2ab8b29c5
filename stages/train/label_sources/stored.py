"""The labels of stage one (SemiOVS, arXiv 2507.03302), weighed by their stored confidence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pipeline.section import Name
from stages.train.label_sources.base import Asked, LabelSource, LabelSourceConfig, Threshold

if TYPE_CHECKING:
    from stages.pseudolabel.pseudo_labels import PseudoLabels
    from stages.train.batch import CropBatch


class StoredConfig(LabelSourceConfig):
    """Keys of a stored label source."""

    on: Literal["unlabeled", "ood"] = "ood"
    """Role of the images it labels."""
    labeler: Name
    """The labeler in the section `pseudolabel` whose labels to read."""
    confidence: Literal["stored", "one"] = "stored"
    """What a pixel counts: its stored confidence, or 1 as SemiOVS has it."""
    student: Literal["current", "ema"] = "current"
    """Who labels pixels pasted in from another role: the student, or its moving average."""
    student_threshold: Threshold = 0.95
    """Confidence that such pixels need to count."""


class StoredSource(LabelSource):
    """Fixed labels from the store."""

    Config = StoredConfig
    version = 1
    config: StoredConfig

    @property
    def student_threshold(self) -> float:
        """See `LabelSource.student_threshold`."""
        return self.config.student_threshold

    @property
    def asks(self) -> Asked:
        """See `LabelSource.asks`."""
        return "student" if self.config.student == "current" else "teacher"

    @property
    def name(self) -> str:
        """See `LabelSource.name`."""
        return f"{super().name}_{self.config.labeler}"

    @property
    def labeler(self) -> str:
        """See `LabelSource.labeler`."""
        return self.config.labeler

    def label(self, images: CropBatch, seen: PseudoLabels) -> PseudoLabels:
        """See `LabelSource.label`."""
        stored = images.stored[self.config.labeler]
        return stored if self.config.confidence == "stored" else stored.certain()
