"""Base of the label sources whose labels a network predicts during the training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from pipeline.config.config_section import Facts
from stages.train.step.confidence_weights import Mode, weigh
from stages.train.step.label_sources.base import LabelSource, LabelSourceConfig, Threshold

if TYPE_CHECKING:
    from torch import Tensor

    from stages.labels.pseudo_labels import PseudoLabels
    from stages.train.step.schedule import Length


class OnlineConfig(LabelSourceConfig):
    """Keys of a source whose labels a network predicts during the training."""

    threshold: Threshold = 0.95
    """Least confidence of a pixel that counts."""
    mode: Mode = "pixelwise"
    """How confidences become weights: confident pixels count (pixelwise); every pixel counts by the
    share of confident ones in its image (pixelratio) or in the batch (batchratio), or by the mean
    confidences of its group of images (pixelavg)."""
    pixelavg_images: Annotated[int, Field(ge=1)] | None = None
    """Number of images in a group of pixelavg: the batch of one GPU in a published training; null =
    all of the batch."""

    def facts(self, prefix: str) -> Facts:
        """See `Section.facts`; 2: each group has its own weight, not the mean of all groups."""
        own = {} if self.pixelavg_images is None else {f"{prefix}.pixelavg_version": 2}
        return {**super().facts(prefix), **own}

    @model_validator(mode="after")
    def _groups_only_for_pixelavg(self) -> OnlineConfig:
        if self.pixelavg_images is not None and self.mode != "pixelavg":
            raise ValueError("`pixelavg_images` needs `mode: pixelavg`; leave it out")
        return self


class OnlineSource(LabelSource):
    """Weighs pixels by `mode`; subclasses only label crops, of any role."""

    config: OnlineConfig

    def doubts(self, length: Length) -> list[str]:
        """See `LabelSource.doubts`: a threshold that hardly a pixel reaches."""
        if self.config.mode == "pixelavg" or self.config.threshold < 1:
            return []
        return ["`threshold: 1` leaves only pixels of probability 1, which are rare or none"]

    def weigh(self, labels: PseudoLabels, valid: Tensor) -> Tensor:
        """See `LabelSource.weigh`."""
        config = self.config
        images = config.pixelavg_images
        return weigh(config.mode, labels.confidence, config.threshold, valid, images)
