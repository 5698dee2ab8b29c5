"""What label sources share that a network makes the labels for while another trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from stages.train.step.confidence_weights import Mode, weigh
from stages.train.step.label_sources.base import LabelSource, LabelSourceConfig, Threshold

if TYPE_CHECKING:
    from torch import Tensor

    from stages.labels.pseudo_labels import PseudoLabels


class OnlineConfig(LabelSourceConfig):
    """Keys of a source whose labels a network makes while it trains."""

    threshold: Threshold = 0.95
    """Confidence that a pixel needs to count."""
    mode: Mode = "pixelwise"
    """How confidences become weights: a confident pixel counts (pixelwise); every pixel counts as
    much as there are confident ones in its image (pixelratio) or in the batch (batchratio), or as
    confident as the batch is on the whole (pixelavg)."""
    pixelavg_images: Annotated[int, Field(ge=1)] | None = None
    """How many images' mean confidences pixelavg adds up, as many as a GPU had in a published
    training; null = all of the batch."""

    @model_validator(mode="after")
    def _adds_up_where_it_averages(self) -> OnlineConfig:
        if self.pixelavg_images is not None and self.mode != "pixelavg":
            raise ValueError("`pixelavg_images` is for `mode: pixelavg`; leave it out")
        return self


class OnlineSource(LabelSource):
    """Subclasses label crops of any role, and need not weigh them."""

    config: OnlineConfig

    def weigh(self, labels: PseudoLabels, valid: Tensor) -> Tensor:
        """See `LabelSource.weigh`."""
        config = self.config
        images = config.pixelavg_images
        return weigh(config.mode, labels.confidence, config.threshold, valid, images)
