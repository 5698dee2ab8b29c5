"""Random color changes of strong views.

They run on whole batches, on the device of the batch. The random numbers are drawn on the CPU, so a
view is the same on every device.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from stages.train.data.random_numbers import StepRandom

GRAY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a pixel's lightness (ITU-R BT.601)."""

JITTER_PROBABILITY = 0.8
GRAYSCALE_PROBABILITY = 0.2
BLUR_PROBABILITY = 0.5
SIGMA_PX = (0.1, 2.0)
"""Least and largest standard deviation of the blur."""
_CACHED_PX = 2**17
"""Pixels processed at once on a CPU. More do not fit its caches, which is slower per pixel."""


def random_colors(images: Tensor, random: StepRandom, purpose: str) -> Tensor:
    """Random color jitter, grayscale and blur (UniMatch, arXiv 2208.09910, its code).

    Brightness, contrast and saturation change by a factor of 0.5 to 1.5, hue by up to a quarter
    turn, always in this order. The published code uses a random order; except for clipping, the
    first three commute, and a fixed order allows one pass for all images.

    Args:
        images: (B, 3, H, W) float in [0, 1].
        random: The random numbers of the step.
        purpose: Purpose of the numbers, different for each view.

    Returns:
        New images of the same shape and range.
    """
    numbers = random.of_images(purpose, lambda generator: torch.rand(8, generator=generator))
    views = torch.empty_like(images)
    count = len(images)
    if images.device.type == "cpu":
        count = max(1, _CACHED_PX // (images.shape[-2] * images.shape[-1]))
    with torch.autocast(images.device.type, enabled=False):  # colors stay float32
        for first in range(0, len(images), count):
            own = slice(first, first + count)
            views[own] = _recolored(images[own], numbers[own])
    return views


def _recolored(images: Tensor, numbers: Tensor) -> Tensor:
    """The images with colors changed by random numbers (B, 8) in [0, 1)."""
    jitter, brightness, contrast, saturation, hue, drop, soften, sigma = numbers.unbind(dim=1)
    low, high = SIGMA_PX
    factors = (0.5 + brightness, 0.5 + contrast, 0.5 + saturation, 0.5 * hue - 0.25)
    images = _change(images, jitter < JITTER_PROBABILITY, jitter_color, *factors)
    images = _change(images, drop < GRAYSCALE_PROBABILITY, _gray)
    return _change(images, soften < BLUR_PROBABILITY, blur, low + (high - low) * sigma)


def _change(
    images: Tensor, chosen: Tensor, change: Callable[..., Tensor], *parameters: Tensor
) -> Tensor:
    """Applies a change to the chosen images, with each image's entry of every parameter."""
    rows = chosen.nonzero()[:, 0]
    if not len(rows):
        return images
    own = [p[rows].to(images.device, images.dtype).view(-1, 1, 1, 1) for p in parameters]
    if len(rows) == len(images):
        return change(images, *own)
    rows = rows.to(images.device)
    return images.index_copy(0, rows, change(images[rows], *own))


def lightness(images: Tensor) -> Tensor:
    """Gray versions (B, 1, H, W) of images (B, 3, H, W)."""
    red, green, blue = images.chunk(3, dim=1)
    return (GRAY[0] * red).add_(green, alpha=GRAY[1]).add_(blue, alpha=GRAY[2])


def _gray(images: Tensor) -> Tensor:
    return lightness(images).expand_as(images)


def jitter_color(
    images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor
) -> Tensor:
    """Changes brightness, contrast, saturation and hue, in this order, as torchvision defines them.

    Args:
        images: (B, 3, H, W) float in [0, 1].
        brightness: (B, 1, 1, 1) factors, 1 = unchanged; as `contrast` and `saturation`.
        contrast: Factors on the distance from the image's mean lightness.
        saturation: Factors on the distance from each pixel's lightness.
        hue: (B, 1, 1, 1) shares of a full turn, 0 = unchanged.

    Returns:
        New images of the same shape and range.
    """
    images = (images * brightness).clamp_(0, 1)
    mean = lightness(images).mean(dim=(2, 3), keepdim=True)
    images.mul_(contrast).add_(mean * (1 - contrast)).clamp_(0, 1)
    gray = lightness(images)
    images.mul_(saturation).add_(gray.mul_(1 - saturation)).clamp_(0, 1)
    return turn_hue(images, hue)


def turn_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turns the hue of every pixel and keeps its largest and smallest channel values (HSV).

    Args:
        images: (B, 3, H, W) float in [0, 1].
        turn: (B, 1, 1, 1) shares of a full turn, at most a third either way.
    """
    red, green, blue = images.chunk(3, dim=1)
    least = torch.minimum(red, green).minimum(blue)
    chroma = torch.maximum(red, green).maximum(blue).sub_(least)
    # Hue in sixths of a turn from red, positive towards green. With the channels scaled from 0
    # (least) to 1, it is green + blue - red + 1 on each sixth. A gray pixel may get any hue.
    away = (green + blue).sub_(red).sub_(least)
    away.div_(chroma.clamp(min=torch.finfo(images.dtype).tiny)).add_(1)
    hue = away.copysign_(green - blue).add_(6 * turn)
    turned = torch.empty_like(images)
    for peak, channel in zip((0, 2, -2), turned.chunk(3, dim=1), strict=True):
        # A channel is full within a sixth of its own hue, zero beyond two sixths, and linear in
        # between. A distance of up to 7 sixths is at most one sixth the other way round: full.
        share = torch.sub(hue, peak).abs_().sub_(3).abs_().sub_(1).clamp_(0, 1)
        torch.addcmul(least, chroma, share, out=channel)
    return turned


def blur(images: Tensor, sigma_px: Tensor) -> Tensor:
    """Gaussian blur; the outermost pixels are repeated beyond the border.

    Args:
        images: (B, C, H, W) float.
        sigma_px: (B, 1, 1, 1) standard deviations, up to the largest of `SIGMA_PX`.
    """
    radius = round(3 * SIGMA_PX[1])
    taps = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernels = torch.softmax(-0.5 * (taps / sigma_px) ** 2, dim=-1)  # (B, 1, 1, taps)
    weights = [kernels[..., tap, None] for tap in range(radius, len(taps))]
    padded = pad(images, [radius] * 4, mode="replicate")
    return _weighted(_weighted(padded, weights, dim=3), weights, dim=2)


def _weighted(images: Tensor, weights: Sequence[Tensor], dim: int) -> Tensor:
    """Weighted sums of each pixel and its neighbors along one axis, without padding.

    On a CPU, a convolution of so few channels takes several times as long.

    Args:
        images: (B, C, H, W) float.
        weights: (B, 1, 1, 1) each: of the pixel itself, of its next neighbors, and so on.
        dim: The axis.
    """
    radius = len(weights) - 1
    length = images.shape[dim] - 2 * radius
    sums = images.narrow(dim, radius, length) * weights[0]
    for distance, weight in enumerate(weights[1:], 1):
        before = images.narrow(dim, radius - distance, length)
        sums.addcmul_(before + images.narrow(dim, radius + distance, length), weight)
    return sums
