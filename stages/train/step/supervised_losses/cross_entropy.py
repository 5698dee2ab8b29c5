"""Cross-entropy with the same weight for every pixel that has a class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.config.config_section import Section
from pipeline.config.vocabulary import IGNORE
from stages.train.step.supervised_losses.base import SupervisedLoss

if TYPE_CHECKING:
    from torch import Tensor


class CrossEntropyConfig(Section):
    """The loss `cross_entropy` has no keys."""


class CrossEntropyLoss(SupervisedLoss):
    """Mean over the pixels of the whole batch, of all processes, that have a class."""

    Config = CrossEntropyConfig
    version = 1

    def measure(self, logits: Tensor, mask: Tensor) -> Tensor:
        """See `SupervisedLoss.measure`."""
        from torch.nn.functional import cross_entropy

        from stages.train.distributed import denominator

        total = cross_entropy(logits.float(), mask, ignore_index=IGNORE, reduction="sum")
        return total / denominator((mask != IGNORE).sum())
