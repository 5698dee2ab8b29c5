"""Complementary channel dropout (UniMatch V2, arXiv 2410.10777, section 3.3)."""

import torch
from torch import Tensor

from stages.train.data.random_numbers import Draws

KEPT_WHOLE = 0.5
"""Share of the images, rounded down, whose features stay as they are."""


def complementary_masks(channels: int, draws: Draws) -> Tensor:
    """What to multiply the features of two views of the same images by.

    Of each channel one view has double and the other nothing, at random; all levels of as many
    channels have the same mask.

    Args:
        channels: Number of channels F.
        draws: The step's random numbers.

    Returns:
        (2 B, F) float32 of 0, 1 and 2, the first view's rows first; the two views' mean is 1.
    """
    purpose = f"complementary dropout of {channels} channels"
    first = 2.0 * draws.of_images(purpose, lambda g: torch.rand(channels, generator=g) < 0.5)
    order = torch.randperm(draws.total, generator=draws.of_step("features kept whole"))
    is_whole = order[list(draws.images)] < int(KEPT_WHOLE * draws.total)
    first[is_whole] = 1.0
    return torch.cat([first, 2 - first])
