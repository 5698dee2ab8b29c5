"""Colours of the strong view.

Whole batches on their own device, each image with its own random numbers; these are drawn on the
CPU, so a view is the same on every device.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

GRAY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a pixel's lightness (ITU-R BT.601)."""

JITTER_PROBABILITY = 0.8
GRAYSCALE_PROBABILITY = 0.2
BLUR_PROBABILITY = 0.5
SIGMA_PX = (0.1, 2.0)
"""Least and largest standard deviation of the blur."""
NUM_CHANCES = 8
"""Random numbers that the view of an image takes."""


def strong_view(images: Tensor, chances: Tensor) -> Tensor:
    """Jitters colours, drops them and blurs, each at random (UniMatch, arXiv 2208.09910, its code).

    Brightness, contrast and saturation change by a factor of 0.5 to 1.5, hue by up to a quarter
    turn. They always come in this order: but for clipping the first three commute, so the random
    order of the published code adds nothing that is worth giving up one pass for all images.

    Args:
        images: (B, 3, H, W) float in [0, 1].
        chances: (B, NUM_CHANCES) uniform random numbers in [0, 1), on the CPU.

    Returns:
        New images of the same shape and range.
    """
    jitter, brightness, contrast, saturation, hue, drop, soften, sigma = chances.unbind(dim=1)
    low, high = SIGMA_PX
    views = images.clone()
    factors = (0.5 + brightness, 0.5 + contrast, 0.5 + saturation, 0.5 * hue - 0.25)
    _change(views, jitter < JITTER_PROBABILITY, jitter_color, *factors)
    _change(views, drop < GRAYSCALE_PROBABILITY, lambda some: lightness(some).expand_as(some))
    _change(views, soften < BLUR_PROBABILITY, blur, low + (high - low) * sigma)
    return views


def _change(
    images: Tensor, chosen: Tensor, change: Callable[..., Tensor], *parameters: Tensor
) -> None:
    """Changes the chosen images in place, each by its own entry of every parameter."""
    rows = chosen.nonzero()[:, 0]
    if len(rows):
        own = (p[rows].to(images.device, images.dtype).view(-1, 1, 1, 1) for p in parameters)
        images[rows] = change(images[rows], *own)


def lightness(images: Tensor) -> Tensor:
    """Grey versions (B, 1, H, W) of images (B, 3, H, W)."""
    red, green, blue = images.chunk(3, dim=1)
    return GRAY[0] * red + GRAY[1] * green + GRAY[2] * blue


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
    images = (images * brightness).clamp(0, 1)
    mean = lightness(images).mean(dim=(2, 3), keepdim=True)
    images = mean.lerp(images, contrast).clamp(0, 1)
    images = lightness(images).lerp(images, saturation).clamp(0, 1)
    return turn_hue(images, hue)


def turn_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turns the hue of every pixel, keeping its largest and smallest channel (HSV).

    Args:
        images: (B, 3, H, W) float in [0, 1].
        turn: (B, 1, 1, 1) shares of a full turn.
    """
    red, green, blue = images.chunk(3, dim=1)
    value = images.amax(dim=1, keepdim=True)
    chroma = value - images.amin(dim=1, keepdim=True)
    # In sixths of a turn from red. Where a pixel is grey any hue will do: it is multiplied by 0.
    sixths = torch.where(
        value == red,
        green - blue,
        torch.where(value == green, blue - red, red - green),
    ) / chroma.clamp(min=torch.finfo(images.dtype).tiny)
    sixths = sixths + torch.where(value == red, 0, torch.where(value == green, 2, 4)) + 6 * turn
    # A channel is full within a sixth of its own hue, gone beyond two, and linear between.
    own = images.new_tensor([5, 3, 1]).view(3, 1, 1)
    position = (sixths + own).remainder(6)
    return value - chroma * torch.minimum(position, 4 - position).clamp(0, 1)


def blur(images: Tensor, sigma_px: Tensor) -> Tensor:
    """Gaussian blur; beyond its border an image goes on as its outermost pixels.

    Args:
        images: (B, C, H, W) float.
        sigma_px: (B, 1, 1, 1) standard deviations, up to the largest of `SIGMA_PX`.
    """
    count, channels, height, width = images.shape
    radius = round(3 * SIGMA_PX[1])
    taps = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernels = torch.softmax(-0.5 * (taps / sigma_px) ** 2, dim=-1)  # (B, 1, 1, taps)
    kernels = kernels.repeat_interleave(channels, dim=0)
    planes = pad(images, [radius] * 4, mode="replicate").view(
        1, count * channels, -1, width + 2 * radius
    )
    planes = conv2d(planes, kernels, groups=count * channels)
    planes = conv2d(planes, kernels.transpose(2, 3), groups=count * channels)
    return planes.view(count, channels, height, width)
