"""One label of several for each pixel of an image.

Shapes: M members, H x W pixels. Masks are (M, H, W) int64 class ids, 255 = ignore; confidences are
(M, H, W) float in [0, 1]. Each rule returns a (H, W) int64 mask, and a (H, W) float confidence that
is 0 where the mask is ignore; of classes that are equally good the first member's is taken.
"""

import torch
from torch import Tensor

from pipeline.config.vocabulary import IGNORE


def agreement(masks: Tensor, confidences: Tensor, quorum: int) -> tuple[Tensor, Tensor]:
    """The class that most members name, ignore where fewer than `quorum` do.

    Where several classes have as many votes, the one whose voters are surer wins. Confidence is the
    mean of its voters' confidences.
    """
    votes = torch.zeros_like(confidences)
    support = torch.zeros_like(confidences)
    for mask, confidence in zip(masks, confidences, strict=True):
        names_it = (masks == mask) & (mask != IGNORE)
        votes += names_it
        support += names_it * confidence
    mean = support / votes.clamp(min=1)
    # Means are at most 1, so that halved they never outweigh a vote.
    winner = (votes + mean / 2).argmax(0)[None]
    kept = votes.gather(0, winner)[0] >= quorum
    mask = masks.gather(0, winner)[0].where(kept, IGNORE)
    return mask, mean.gather(0, winner)[0].where(kept, 0)


def surest(masks: Tensor, confidences: Tensor) -> tuple[Tensor, Tensor]:
    """The class and the confidence of the member that is surest, of those that name one."""
    winner = confidences.where(masks != IGNORE, -1.0).argmax(0)[None]
    mask = masks.gather(0, winner)[0]
    return mask, confidences.gather(0, winner)[0].where(mask != IGNORE, 0)


def mean_probability(
    masks: Tensor, confidences: Tensor, weights: Tensor, num_classes: int
) -> tuple[Tensor, Tensor]:
    """The most probable class of the weighted mean of the members' probabilities.

    A member that names a class gives it its confidence, at least 1 / C, and each of the other C - 1
    classes an equal share of the rest: more is not known. One that names none gives each 1 / C. So
    no class that nobody names is ever more probable than one that somebody does.

    Args:
        masks: As above.
        confidences: As above.
        weights: (M,) float, positive.
        num_classes: C.
    """
    evenly = 1 / num_classes
    own = confidences.clamp(min=evenly).where(masks != IGNORE, evenly)
    others = (1 - own) / max(1, num_classes - 1)
    probability = torch.zeros_like(own)
    for mask, mine, rest, weight in zip(masks, own, others, weights / weights.sum(), strict=True):
        probability += weight * mine.where((masks == mask) & (mask != IGNORE), rest)
    best, winner = probability.where(masks != IGNORE, -1.0).max(0, keepdim=True)
    mask = masks.gather(0, winner)[0]
    return mask, best[0].clamp(0, 1).where(mask != IGNORE, 0)
