"""Turns the probabilities of channels into a class and a confidence per pixel."""

import torch
from torch import Tensor

from pipeline.config.vocabulary import IGNORE
from stages.models.finite import finite_scores


def classify_pixels(
    probabilities: Tensor,
    values: Tensor,
    background: int,
    *,
    threshold: float = 0.0,
    prob_threshold: float = 0.0,
    area_threshold: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Gives each pixel its most probable channel, with SCLIP's thresholds (arXiv 2312.01597).

    Args:
        probabilities: (C, H, W) float in [0, 1].
        values: (C,) int64, the mask value of each channel.
        background: Mask value of pixels without a class: a class id, or 255 = ignore.
        threshold: Pixels whose best channel is less probable are ignored.
        prob_threshold: Pixels whose best channel is less probable become background, even if they
            are below `threshold` too.
        area_threshold: Channels that are best in at most this share of the pixels without
            background are removed from the image; their pixels go to the next best channel.

    Returns:
        (H, W) int64 mask, 255 = ignore, and (H, W) float confidence, 0 where the mask is ignore:
        the probability of the best channel, also of pixels that became background.

    Raises:
        NotFiniteError: A probability is NaN or infinite.
    """
    finite_scores(probabilities)
    if area_threshold is not None:
        probabilities = _without_small(probabilities, values != background, area_threshold)
    best, channel = probabilities.max(0)
    is_background = (best < prob_threshold) | (best <= 0)
    kept = is_background | (best >= threshold)
    mask = values[channel].where(~is_background, background).where(kept, IGNORE)
    return mask, best.clamp(max=1).where(mask != IGNORE, 0)


def _without_small(probabilities: Tensor, is_foreground: Tensor, share: float) -> Tensor:
    winners = probabilities.argmax(0).flatten()
    areas = torch.bincount(winners, minlength=len(probabilities)) * is_foreground
    stays = (areas > share * areas.sum()) | ~is_foreground
    return probabilities * stays[:, None, None]
