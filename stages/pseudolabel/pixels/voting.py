"""Rules that merge the labels of several members, pixel by pixel.

Shapes: M members, H x W pixels. Masks are (M, H, W) int64 class ids, 255 = ignore; confidences are
(M, H, W) float in [0, 1]. Each rule returns a (H, W) int64 mask, and a (H, W) float confidence that
is 0 where the mask is ignore. In a tie the class of the first member wins.
"""

import torch
from torch import Tensor

from pipeline.config.vocabulary import IGNORE


def agreement(masks: Tensor, confidences: Tensor, quorum: int) -> tuple[Tensor, Tensor]:
    """The class with the most votes; ignore where it has fewer than `quorum` votes.

    If several classes have the same number of votes, the one with the higher mean confidence wins.
    Confidence is the mean over the members that voted for the class.
    """
    votes = torch.zeros_like(confidences)
    support = torch.zeros_like(confidences)
    for mask, confidence in zip(masks, confidences, strict=True):
        agrees = (masks == mask) & (mask != IGNORE)
        votes += agrees
        support += agrees * confidence
    mean = support / votes.clamp(min=1)
    # A mean is at most 1, so half of it only breaks ties between equal numbers of votes.
    winner = (votes + mean / 2).argmax(0)[None]
    kept = votes.gather(0, winner)[0] >= quorum
    mask = masks.gather(0, winner)[0].where(kept, IGNORE)
    return mask, mean.gather(0, winner)[0].where(kept, 0)


def surest(masks: Tensor, confidences: Tensor) -> tuple[Tensor, Tensor]:
    """The class and the confidence of the most confident member that has a class."""
    winner = confidences.where(masks != IGNORE, -1.0).argmax(0)[None]
    mask = masks.gather(0, winner)[0]
    return mask, confidences.gather(0, winner)[0].where(mask != IGNORE, 0)


def mean_probability(
    masks: Tensor, confidences: Tensor, weights: Tensor, num_classes: int
) -> tuple[Tensor, Tensor]:
    """The most probable class of the weighted mean of the members' probabilities.

    The store has only the probability of each member's class. That class gets the confidence, but
    at least 1 / C; each of the other C - 1 classes gets an equal share of the rest. A member whose
    label is ignore gives 1 / C to every class. So a class without a vote never wins.

    Args:
        masks: (M, H, W) int64, 255 = ignore.
        confidences: (M, H, W) float.
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
