"""A trained segmenter as a labeler: offline self-training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from pipeline.config.config_section import Facts, Section
from pipeline.files.checksum import checksum
from pipeline.files.config_paths import ConfigLocation
from stages.models.segmenters.description import read_description
from stages.pseudolabel.labelers.base import Labeler

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from stages.labels.pseudo_labels import PseudoLabels
    from stages.pseudolabel.labelers.base import ImageBatch


class SegmenterConfig(Section):
    """Keys of the labeler `segmenter`."""

    weights: ConfigLocation
    """The model file of a training, `model.safetensors` in the artifacts of its run. It must be
    another run than this one: labels that depend on themselves would never be fresh."""

    @model_validator(mode="before")
    @classmethod
    def _has_no_model(cls, values: Any) -> Any:
        if isinstance(values, dict) and "model" in values:
            fix = "remove it: the model file says which network was trained"
            raise PydanticCustomError("unknown_key", "{fix}", {"key": "model", "fix": fix})
        return values


class Segmenter(Labeler):
    """Labels each pixel with the network's most probable class, by the model file's protocol."""

    Config = SegmenterConfig
    version = 2
    config: SegmenterConfig
    libraries = ("torch", "segmentation-models-pytorch", "timm")

    @property
    def resizes(self) -> bool:
        """See `Labeler.resizes`: the protocol speaks of images as decoded, as in evaluation."""
        return True

    def weights_facts(self) -> Facts:
        """See `Labeler.weights_facts`."""
        read_description(self.config.weights)  # refuses a file that is missing or of another kind
        return {"weights": checksum(self.config.weights)}

    def vocabulary_facts(self) -> Facts:
        """See `Labeler.vocabulary_facts`; refuses a network for other classes.

        Raises:
            WeightsError: The file is not a model file, or its classes are not the vocabulary's.
        """
        path = self.config.weights
        read_description(path).check_classes(self.vocabulary, path)
        return super().vocabulary_facts()

    def rehearse(self, *, downloads: bool) -> None:
        """See `Labeler.rehearse`: whether the file's weights are those of its network."""
        import torch

        self.load(torch.device("cpu"))

    def load(self, device: torch.device, cache: Path | None = None) -> None:
        """See `Labeler.load`; refuses a network for other classes too."""
        from stages.models.segmenters.model_file import load_model_file

        self._predictor = load_model_file(self.config.weights, device, vocabulary=self.vocabulary)

    def label(self, images: ImageBatch) -> PseudoLabels:
        """See `Labeler.label`; confidence is the probability of the class."""
        predictor = self._predictor
        labels = [
            predictor.label(images.original(index), size) for index, size in enumerate(images.sizes)
        ]
        return images.place(labels, predictor.device)
