"""Base of the label sources that read the stored labels of stage one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pipeline.config.config_section import Facts, Name
from pipeline.records import part_file
from stages.pseudolabel.output import classes_shown, read_calibration
from stages.train.step.label_sources.base import LabelSource, LabelSourceConfig, Threshold

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import Tensor

    from pipeline.config.config import Config as RunConfig
    from stages.labels.pseudo_labels import PseudoLabels
    from stages.train.data.batch import TrainBatch
    from stages.train.step.weak_predictions import NetworkName, WeakPredictions


class StoredLabelConfig(LabelSourceConfig):
    """Keys of a source that reads stored labels."""

    labeler: Name
    """The labeler in the section `pseudolabel` whose labels to read."""
    confidence: Literal["stored", "temperature", "isotonic", "one"] = "stored"
    """Weight of a pixel: its stored confidence; the same, calibrated on the labeled images by
    temperature or isotonic; or 1, as in SemiOVS."""
    student: Literal["current", "ema"] = "current"
    """The network whose predictions are used too: the student, or its moving average."""
    student_threshold: Threshold = 0.95
    """Least confidence of a prediction that is used."""


class StoredLabelSource(LabelSource):
    """Reads labels from the store; a network labels pixels pasted from another role."""

    config: StoredLabelConfig
    _maps: Tensor | None = None

    @property
    def network(self) -> NetworkName:
        """The network whose predictions are used too."""
        return "student" if self.config.student == "current" else "ema"

    @property
    def name(self) -> str:
        """See `LabelSource.name`."""
        return f"{super().name}_{self.config.labeler}"

    @property
    def labeler(self) -> str:
        """See `LabelSource.labeler`."""
        return self.config.labeler

    @property
    def is_calibrated(self) -> bool:
        """See `LabelSource.is_calibrated`."""
        return self.config.confidence in ("temperature", "isotonic")

    def shows(self, run: RunConfig) -> frozenset[int] | None:
        """See `LabelSource.shows`: what its labeler can label."""
        return classes_shown(run, self.labeler)

    def inputs(self, run: RunConfig) -> Facts:
        """See `LabelSource.inputs`: the maps themselves, so that equal maps retrain nothing."""
        if (maps := self._read_maps(run)) is None:
            return {}
        return {f"inputs.calibration of {self.labeler}": part_file.digest(maps.tolist())}

    def load(self, run: RunConfig, device: torch.device) -> None:
        """See `LabelSource.load`."""
        import torch

        if (maps := self._read_maps(run)) is not None:
            self._maps = torch.from_numpy(maps).to(device)

    def read(self, batch: TrainBatch, key: str, weak: WeakPredictions) -> PseudoLabels:
        """Stored labels of crops of its role; a network's confident predictions for other crops."""
        if batch.role(key) != self.config.on:
            return weak.of(self.network, key).confident(self.config.student_threshold)
        stored = batch.crops[key].stored[self.labeler]
        if self.config.confidence == "one":
            return stored.certain()
        return stored if self._maps is None else stored.calibrated(self._maps)

    def _read_maps(self, run: RunConfig) -> npt.NDArray[np.uint8] | None:
        confidence = self.config.confidence
        if confidence == "stored" or confidence == "one":
            return None
        return read_calibration(run, self.labeler, confidence)
