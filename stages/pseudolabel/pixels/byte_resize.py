"""Resizing of images by the rules of published recipes, which round to 8 bits as they resize."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_OPENCV_BITS = 11
_HORIZONTAL_SHIFT = 4
_VERTICAL_SHIFT = 16
_LAST_SHIFT = 2
"""OpenCV's fixed point: weights of 11 bits, sums that lose 4, 16 and 2 bits of the 22."""


def pillow(image: Tensor, size: tuple[int, int], filter_: Image.Resampling) -> Tensor:
    """Resizes as Pillow does, antialiased.

    Args:
        image: (3, H, W) uint8, on any device.
        size: (height, width).
        filter_: Pillow's filter.

    Returns:
        (3, height, width) uint8, on the image's device.
    """
    pixels = Image.fromarray(np.ascontiguousarray(image.movedim(0, -1).cpu().numpy()))
    resized = np.array(pixels.resize(size[::-1], filter_))
    return torch.from_numpy(resized).movedim(-1, 0).to(image.device)


def opencv(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes as OpenCV's INTER_LINEAR does: bilinear between two pixels, without antialiasing.

    Args:
        image: (3, H, W) uint8, on any device.
        size: (height, width).

    Returns:
        (3, height, width) uint8, on the image's device.
    """
    height, width = image.shape[-2:]
    if (height, width) == size:
        return image
    columns, weights = _neighbours(width, size[1])
    # At both ends of a row OpenCV takes one pixel whole; columns are repeated beyond their ends.
    weights[(columns < 0) | (columns >= width - 1)] = torch.tensor([1 << _OPENCV_BITS, 0]).int()
    columns, weights = columns.to(image.device), weights.to(image.device)
    left, right = (image.int()[..., (columns + step).clamp(0, width - 1)] for step in (0, 1))
    wide = left * weights[:, 0] + right * weights[:, 1]
    rows, weights = (each.to(image.device) for each in _neighbours(height, size[0]))
    above, below = (
        (wide[:, (rows + step).clamp(0, height - 1)] >> _HORIZONTAL_SHIFT) * weights[:, step, None]
        >> _VERTICAL_SHIFT
        for step in (0, 1)
    )
    half = 1 << (_LAST_SHIFT - 1)
    return ((above + below + half) >> _LAST_SHIFT).to(torch.uint8)


def _neighbours(before: int, after: int) -> tuple[Tensor, Tensor]:
    """For each new pixel of a line: its first neighbour (N,) int64, and weights (N, 2) int32.

    Positions are computed in double, and weights in single precision, as OpenCV does.
    """
    scale = 1 / (after / before)
    place = ((np.arange(after) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(place)
    share = place - first
    weights = np.stack([np.float32(1) - share, share], axis=1) * np.float32(1 << _OPENCV_BITS)
    return torch.from_numpy(first.astype(np.int64)), torch.from_numpy(
        np.rint(weights).astype(np.int32)
    )
