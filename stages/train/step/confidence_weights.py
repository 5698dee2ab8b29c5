"""Weights of pixels in the loss, computed from their confidences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, assert_never

if TYPE_CHECKING:
    from torch import Tensor

Mode = Literal["pixelwise", "pixelratio", "pixelavg", "batchratio"]


def weigh(
    mode: Mode, confidence: Tensor, threshold: float, valid: Tensor, images: int | None = None
) -> Tensor:
    """The weight of each pixel's cross-entropy; the sum is divided by the number of valid pixels.

    `pixelwise`: 1 for confident valid pixels (UniMatch, arXiv 2208.09910). `pixelratio`: each
    image's share of confident pixels among its valid ones, on padding too. `pixelavg`: the sum of
    the mean confidences of a group of images, on padding too, divided by the group's valid pixels
    instead of the batch's and averaged over groups, as in the code of SemiVL and PrevMatch, where a
    group is the batch of one GPU. `batchratio`: the share of confident pixels in the
    batch, on valid pixels (ClassMix, arXiv 2007.07936, its code).

    Args:
        mode: How confidences become weights.
        confidence: (B, H, W) float in [0, 1].
        threshold: Least confidence of a confident pixel; not used by `pixelavg`.
        valid: (B, H, W) bool, False on padding.
        images: Size of the groups of `pixelavg`, by position in the whole batch; None: all of it.

    Returns:
        (B, H, W) float32.
    """
    from stages.train.distributed import global_sum

    sure = ((confidence >= threshold) & valid).float()
    if mode == "pixelwise":
        return sure
    if mode == "batchratio":
        return global_sum(sure.sum()) / global_sum(valid.sum()).clamp(min=1) * valid
    counts = valid.sum(dim=(1, 2), keepdim=True).clamp(min=1)
    if mode == "pixelratio":
        return (sure.sum(dim=(1, 2), keepdim=True) / counts).expand_as(confidence)
    if mode == "pixelavg":
        means = (confidence * valid).sum(dim=(1, 2), keepdim=True) / counts
        return _group_weights(means, valid, images).expand_as(confidence)
    assert_never(mode)


def _group_weights(means: Tensor, valid: Tensor, images: int | None) -> Tensor:
    """The weight (B, 1, 1) of each image by `pixelavg`, from its mean confidence (B, 1, 1).

    A group's loss is its summed cross-entropy times the sum of its means over its valid pixels; the
    weights make the sum over the batch, divided by all valid pixels, the mean of these losses.
    """
    import torch

    from stages.train.distributed import all_gather_rows, rank

    own = torch.stack([means.flatten(), valid.sum(dim=(1, 2)).float()], dim=1)
    every = all_gather_rows(own)
    group = torch.arange(len(every), device=every.device) // (images or len(every))
    count = int(group[-1]) + 1
    totals = every.new_zeros(count, 2).index_add_(0, group, every)
    weights = totals[:, 0] * every[:, 1].sum() / count / totals[:, 1].clamp(min=1)
    first = rank() * len(own)
    return weights[group[first : first + len(own)]].view_as(means)
