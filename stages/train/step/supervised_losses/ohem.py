"""Online hard example mining: cross-entropy of hard pixels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from pipeline.config.config_section import Section
from pipeline.config.vocabulary import IGNORE
from stages.train.step.supervised_losses.base import SupervisedLoss

if TYPE_CHECKING:
    from torch import Tensor


class OhemConfig(Section):
    """Keys of the loss `ohem`; defaults are UniMatch's for two crops of Cityscapes a GPU."""

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Pixels whose class has at most this probability are hard."""
    min_kept: Annotated[int, Field(ge=1)] = 200_000
    """Least number of pixels that count in `images` crops, the hardest ones."""
    images: Annotated[int, Field(ge=1)] = 2
    """Number of crops that `min_kept` refers to: those of one GPU in the published trainings. Other
    numbers of crops keep pixels in proportion."""


class OhemLoss(SupervisedLoss):
    """Mean over hard pixels (arXiv 1604.03540, as in UniMatch's code).

    A pixel counts if the probability of its class is at most ``max(threshold, k-th smallest)``
    with ``k = min_kept * crops / images``; with fewer than k pixels all count. Each process finds
    its own k-th smallest; the mean is over the pixels of all processes.
    """

    Config = OhemConfig
    version = 2
    config: OhemConfig

    def measure(self, logits: Tensor, mask: Tensor) -> Tensor:
        """See `SupervisedLoss.measure`."""
        import torch
        from torch.nn.functional import cross_entropy

        from stages.train.distributed import denominator

        known = mask != IGNORE
        losses = cross_entropy(logits.float(), mask, ignore_index=IGNORE, reduction="none")[known]
        kept = math.ceil(self.config.min_kept * len(mask) / self.config.images)
        if len(losses) >= kept:
            # The loss is -log(probability): the hardest pixels have the largest loss.
            bound = -torch.tensor(self.config.threshold, device=losses.device).log()
            bound = torch.minimum(bound, losses.detach().topk(kept).values[-1])
            losses = losses[losses.detach() >= bound]
        return losses.sum() / denominator(torch.tensor(len(losses), device=losses.device))
