"""Pooling of dense maps over masks, and fusion of overlapping masks back into pixels.

Shapes: C channels, P masks, H x W pixels.
"""

import torch
from torch import Tensor

_MASKS_AT_ONCE = 64


def mask_means(maps: Tensor, masks: Tensor) -> Tensor:
    """Means of probabilities or features over each mask (ZPL, arXiv 2505.19846).

    Args:
        maps: (C, H, W) float.
        masks: (P, H, W) bool.

    Returns:
        (P, C) float; 0 for an empty mask.
    """
    pixels = maps.flatten(1).T
    sums = [
        chunk.flatten(1).to(pixels.dtype) @ pixels for chunk in torch.split(masks, _MASKS_AT_ONCE)
    ]
    areas = masks.flatten(1).sum(1).clamp(min=1)
    return torch.cat(sums) / areas[:, None]


def soft(dense: Tensor, masks: Tensor, of_masks: Tensor, weights: Tensor, share: float) -> Tensor:
    """Mixes dense probabilities with the weighted mean of the masks that cover each pixel.

    Args:
        dense: (C, H, W) float, probabilities.
        masks: (P, H, W) bool.
        of_masks: (P, C) float, the probabilities of each mask.
        weights: (P,) float, at least 0.
        share: Weight of the masks in the mix, 0 to 1. A pixel keeps its dense probabilities if no
            mask with a positive weight covers it.

    Returns:
        (C, H, W) float.
    """
    if not len(masks):
        return dense
    total, mixed = dense.new_zeros(dense[0].numel()), torch.zeros_like(dense).flatten(1)
    chunks = (torch.split(part, _MASKS_AT_ONCE) for part in (masks, weights, of_masks))
    for some, weight, own in zip(*chunks, strict=True):
        weighted = some.flatten(1) * weight[:, None]
        total += weighted.sum(0)
        mixed += own.T @ weighted
    pooled = (mixed / total.clamp(min=torch.finfo(total.dtype).tiny)).view_as(dense)
    covered = (total > 0).view_as(dense[0])
    return torch.where(covered, (1 - share) * dense + share * pooled, dense)


def paint(dense: Tensor, masks: Tensor, of_masks: Tensor) -> Tensor:
    """Gives each pixel the probabilities of the smallest mask that covers it.

    A pixel that no mask covers keeps its dense probabilities.

    Args:
        dense: (C, H, W) float, probabilities.
        masks: (P, H, W) bool; of masks with equal areas the last one wins.
        of_masks: (P, C) float, the probabilities of each mask.

    Returns:
        (C, H, W) float.
    """
    if not len(masks):
        return dense
    owner = torch.full(dense.shape[1:], -1, device=dense.device)
    for index in masks.flatten(1).sum(1).argsort(descending=True, stable=True).tolist():
        owner.masked_fill_(masks[index], index)
    return torch.where(owner >= 0, of_masks.T[:, owner], dense)
