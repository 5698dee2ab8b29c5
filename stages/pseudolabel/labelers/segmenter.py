"""A segmenter that a training of ours made, as a labeler: self-training offline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.config.config_section import Facts, Section
from pipeline.errors import WeightsError
from pipeline.files.checksum import checksum
from pipeline.files.storage import Location
from stages.models.segmenters.builders.base import ModelChoice
from stages.pseudolabel.labelers.base import Labeler

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from stages.labels.pseudo_labels import PseudoLabels
    from stages.pseudolabel.labelers.base import ImageBatch


class SegmenterConfig(Section):
    """Keys of the labeler `segmenter`."""

    model: ModelChoice
    """What was trained: `train.model` of the config it was trained by."""
    weights: Location
    """The file that its training ended with, `model.safetensors` in the artifacts of its run. Of
    another run than this: labels that come of themselves would never be fresh."""


class Segmenter(Labeler):
    """Labels each pixel by the network's most probable class, whole image by whole image."""

    Config = SegmenterConfig
    version = 1
    config: SegmenterConfig

    def weights_facts(self) -> Facts:
        """See `Labeler.weights_facts`."""
        path = self.config.weights
        try:
            return {"weights": checksum(path)}
        except OSError as error:
            fix = "train it, or name the model.safetensors of a training that is done"
            raise WeightsError(
                "there is no such file", where=f"weights: {path}", fix=fix
            ) from error

    def load(self, device: torch.device, cache: Path | None = None) -> None:
        """See `Labeler.load`; refuses a segmenter of other classes too."""
        from stages.models.segmenters.predictor import Predictor

        fix = "set `model` and `vocabulary` to what it was trained by, or train it"
        model, path = self.config.model, self.config.weights
        self._predictor = Predictor.load(model, path, self.vocabulary, device, fix)

    def label(self, images: ImageBatch) -> PseudoLabels:
        """See `Labeler.label`; confidence is the probability of the class."""
        from stages.labels.pseudo_labels import PseudoLabels

        predictor = self._predictor
        found = [
            PseudoLabels.from_logits(predictor.logits(canvas[:, :height, :width])[None])
            for canvas, (height, width) in zip(images.pixels, images.sizes, strict=True)
        ]
        labels = [(own.mask[0], own.confidence[0]) for own in found]
        return images.place(labels, predictor.device)
