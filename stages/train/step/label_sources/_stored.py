"""What label sources share that read the artifacts of stage one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pipeline.config.config_section import Facts, Name
from pipeline.records import part_file
from stages.pseudolabel.output import read_calibration
from stages.train.step.label_sources.base import LabelSource, LabelSourceConfig, Threshold

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import Tensor

    from pipeline.config.config import Config as RunConfig
    from stages.labels.pseudo_labels import PseudoLabels
    from stages.train.data.batch import TrainBatch
    from stages.train.step.weak_predictions import Observer, Sight


class ReadingConfig(LabelSourceConfig):
    """Keys of a source that reads stored labels."""

    labeler: Name
    """The labeler in the section `pseudolabel` whose labels to read."""
    confidence: Literal["stored", "temperature", "isotonic", "one"] = "stored"
    """What a pixel counts: its stored confidence; the same, calibrated on the labeled images by
    temperature or isotonic; or 1 as SemiOVS has it."""
    student: Literal["current", "ema"] = "current"
    """The network that is asked about pixels too: the student, or its moving average."""
    student_threshold: Threshold = 0.95
    """Confidence that it needs to be heard."""


class ReadingSource(LabelSource):
    """Fixed labels from the store; the student labels what is pasted in from another role."""

    config: ReadingConfig
    _maps: Tensor | None = None

    @property
    def observer(self) -> Observer:
        """The network that is asked about pixels too."""
        return "student" if self.config.student == "current" else "ema"

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
        return {f"inputs.calibration of {self.labeler}": part_file.digest(maps.tolist())}

    def load(self, run: RunConfig, device: torch.device) -> None:
        """See `LabelSource.load`."""
        import torch

        if (maps := self._read_maps(run)) is not None:
            self._maps = torch.from_numpy(maps).to(device)

    def read(self, batch: TrainBatch, key: str, sight: Sight) -> PseudoLabels:
        """The stored labels of crops, or of another role's what the student is sure of."""
        if batch.role(key) != self.config.on:
            return sight.of(self.observer, key).confident(self.config.student_threshold)
        stored = batch.crops[key].stored[self.labeler]
        if self.config.confidence == "one":
            return stored.certain()
        return stored if self._maps is None else stored.calibrated(self._maps)

    def _read_maps(self, run: RunConfig) -> npt.NDArray[np.uint8] | None:
        confidence = self.config.confidence
        if confidence == "stored" or confidence == "one":
            return None
        return read_calibration(run, self.labeler, confidence)
