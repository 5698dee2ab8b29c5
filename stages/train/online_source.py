"""What label sources share that a network makes the labels for while another trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.train.label_sources.base import LabelSource, LabelSourceConfig, Threshold
from stages.train.weighing import Mode, weigh

if TYPE_CHECKING:
    from torch import Tensor

    from stages.pseudolabel.pseudo_labels import PseudoLabels


class OnlineConfig(LabelSourceConfig):
    """Keys of a source whose labels a network makes while it trains."""

    threshold: Threshold = 0.95
    """Confidence that a pixel needs to count."""
    mode: Mode = "pixelwise"
    """How confidences become weights: a confident pixel counts (pixelwise); every pixel counts as
    much as there are confident ones in its image (pixelratio) or in the batch (batchratio), or as
    confident as the batch is on the whole (pixelavg)."""


class OnlineSource(LabelSource):
    """Subclasses label crops of any role, and need not weigh them."""

    config: OnlineConfig

    def weigh(self, labels: PseudoLabels, valid: Tensor) -> Tensor:
        """See `LabelSource.weigh`."""
        return weigh(self.config.mode, labels.confidence, self.config.threshold, valid)
