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
    image's share of confident pixels among its valid ones, on padding too. `pixelavg`: the sum over
    the batch of each image's mean confidence, on padding too, as in the code of SemiVL and
    PrevMatch; about B times the mean confidence. `batchratio`: the share of confident pixels in the
    batch, on valid pixels (ClassMix, arXiv 2007.07936, its code).

    Args:
        mode: How confidences become weights.
        confidence: (B, H, W) float in [0, 1].
        threshold: Least confidence of a confident pixel; not used by `pixelavg`.
        valid: (B, H, W) bool, False on padding.
        images: Number of mean confidences that `pixelavg` adds up: B of one GPU in the published
            trainings, for any B here; None: all of the batch.

    Returns:
        (B, H, W) float32.
    """
    import torch

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
        total = global_sum(means.sum())
        if images is not None:
            total = total * images / global_sum(torch.ones_like(means).sum())
        return total.expand_as(confidence)
    assert_never(mode)
