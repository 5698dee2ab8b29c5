"""From the probabilities of channels to a class and a confidence for each pixel of an image."""

import torch
from torch import Tensor

from pipeline.config.vocabulary import IGNORE


def decide(
    probabilities: Tensor,
    values: Tensor,
    background: int,
    *,
    threshold: float = 0.0,
    prob_threshold: float = 0.0,
    area_threshold: float | None = None,
) -> tuple[Tensor, Tensor]:
    """The most probable channel of each pixel, with SCLIP's two thresholds (arXiv 2312.01597).

    Args:
        probabilities: (C, H, W) float in [0, 1].
        values: (C,) int64, the mask value of each channel.
        background: Mask value of pixels in which nothing is seen: a class id, or 255 = ignore.
        threshold: Pixels whose best channel is less probable are ignored.
        prob_threshold: Such pixels are background, and not ignored for it.
        area_threshold: Channels that win at most this share of what all but the background win are
            out in this image, and their pixels go to the next best.

    Returns:
        (H, W) int64 mask, 255 = ignore, and (H, W) float confidence, 0 where the mask is ignore:
        the probability of the best channel, also where the background stepped in for it.
    """
    if area_threshold is not None:
        probabilities = _without_small(probabilities, values != background, area_threshold)
    best, channel = probabilities.max(0)
    sees_nothing = (best < prob_threshold) | (best <= 0)
    kept = sees_nothing | (best >= threshold)
    mask = values[channel].where(~sees_nothing, background).where(kept, IGNORE)
    return mask, best.clamp(max=1).where(mask != IGNORE, 0)


def _without_small(probabilities: Tensor, is_foreground: Tensor, share: float) -> Tensor:
    winners = probabilities.argmax(0).flatten()
    areas = torch.bincount(winners, minlength=len(probabilities)) * is_foreground
    stays = (areas > share * areas.sum()) | ~is_foreground
    return probabilities * stays[:, None, None]
