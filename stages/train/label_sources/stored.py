"""The labels of stage one (SemiOVS, arXiv 2507.03302), weighed by their stored confidence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pipeline import manifest
from pipeline.section import Facts, Name
from stages.pseudolabel.output import read_calibration
from stages.train.label_sources.base import Asked, LabelSource, LabelSourceConfig, Threshold

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from pipeline.config import Config as RunConfig
    from stages.pseudolabel.pseudo_labels import PseudoLabels
    from stages.train.batch import CropBatch


class StoredConfig(LabelSourceConfig):
    """Keys of a stored label source."""

    on: Literal["unlabeled", "ood"] = "ood"
    """Role of the images it labels."""
    labeler: Name
    """The labeler in the section `pseudolabel` whose labels to read."""
    confidence: Literal["stored", "temperature", "isotonic", "one"] = "stored"
    """What a pixel counts: its stored confidence; the same, calibrated on the labeled images by
    temperature or isotonic; or 1 as SemiOVS has it."""
    student: Literal["current", "ema"] = "current"
    """Who labels pixels pasted in from another role: the student, or its moving average."""
    student_threshold: Threshold = 0.95
    """Confidence that such pixels need to count."""


class StoredSource(LabelSource):
    """Fixed labels from the store."""

    Config = StoredConfig
    version = 1
    config: StoredConfig
    _maps: Tensor | None = None

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

    def inputs(self, run: RunConfig) -> Facts:
        """See `LabelSource.inputs`: the maps themselves, so that equal ones retrain nothing."""
        if (maps := self._read_maps(run)) is None:
            return {}
        return {f"inputs.calibration of {self.labeler}": manifest.digest(maps.tolist())}

    def load(self, run: RunConfig) -> None:
        """See `LabelSource.load`."""
        import torch

        if (maps := self._read_maps(run)) is not None:
            self._maps = torch.from_numpy(maps)

    def label(self, images: CropBatch, seen: PseudoLabels) -> PseudoLabels:
        """See `LabelSource.label`."""
        stored = images.stored[self.config.labeler]
        if self.config.confidence == "one":
            return stored.certain()
        return stored if self._maps is None else stored.calibrated(self._maps)

    def _read_maps(self, run: RunConfig) -> npt.NDArray[np.uint8] | None:
        confidence = self.config.confidence
        if confidence == "stored" or confidence == "one":
            return None
        return read_calibration(run, self.labeler, confidence)
