"""Sliding windows for a model that takes squares of one size."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from stages.models.segmenters.windows import starts

MAX_ASPECT = 6
"""Largest ratio of long to short side unless a config says otherwise."""


def scaled_size(
    height_px: int, width_px: int, short_side_px: int, long_side_px: int | None = None
) -> tuple[int, int]:
    """The size of an image scaled to a short side, with its aspect ratio kept.

    An image whose long side would be larger than `long_side_px` is scaled to that instead: a line
    of pixels must not become thousands of windows. Halves are rounded up, as in mmcv.

    Args:
        height_px: Height of the image.
        width_px: Its width.
        short_side_px: The short side to scale to.
        long_side_px: The largest long side; default: `MAX_ASPECT` short sides.
    """
    short, long = sorted((height_px, width_px))
    scale = min(short_side_px / short, (long_side_px or MAX_ASPECT * short_side_px) / long)
    return max(1, int(height_px * scale + 0.5)), max(1, int(width_px * scale + 0.5))


def corners(height_px: int, width_px: int, window_px: int, stride_px: int) -> list[tuple[int, int]]:
    """(top, left) of the windows that cover an image, row by row.

    The last window of a row or column is moved back inside the image. A side shorter than a window
    has one window, at 0.
    """
    tops, lefts = (starts(side, window_px, stride_px, "snap") for side in (height_px, width_px))
    return list(product(tops, lefts))


def sliding_scores(
    images: Sequence[Tensor],
    score: Callable[[Tensor], Tensor],
    *,
    window_px: int,
    stride_px: int,
    batch_size: int,
) -> Iterator[Tensor]:
    """Scores images in windows; one batch of windows may come from several images.

    Args:
        images: (3, H, W) float each, any sizes; padded with the pixels of their edges.
        score: Function from (N, 3, window_px, window_px) to coarse maps (N, C, h, w).
        window_px: Side of a window.
        stride_px: Distance between windows, at most `window_px`.
        batch_size: Maximum number of windows per call of `score`.

    Yields:
        (C, H, W) float for each image in order: the mean over the windows that cover a pixel, each
        map resized bilinearly to its window.
    """
    sizes = [(image.shape[-2], image.shape[-1]) for image in images]
    places = [corners(height, width, window_px, stride_px) for height, width in sizes]
    windows = [(image, corner) for image, own in zip(images, places, strict=True) for corner in own]
    maps = torch.cat(
        [
            score(torch.stack([_cut(*window, window_px) for window in windows[i : i + batch_size]]))
            for i in range(0, len(windows), batch_size)
        ]
    )
    split = torch.split(maps, [len(own) for own in places])
    for size, own, image_maps in zip(sizes, places, split, strict=True):
        yield _merge(image_maps, own, size, window_px)


def _cut(image: Tensor, corner: tuple[int, int], window_px: int) -> Tensor:
    top, left = corner
    window = image[:, top : top + window_px, left : left + window_px]
    height, width = window.shape[-2:]
    padding = (0, window_px - width, 0, window_px - height)
    return F.pad(window[None], padding, mode="replicate")[0]


def _merge(
    maps: Tensor, own: list[tuple[int, int]], size: tuple[int, int], window_px: int
) -> Tensor:
    total = maps.new_zeros(maps.shape[1], *size)
    count = maps.new_zeros(size)
    for coarse, (top, left) in zip(maps, own, strict=True):
        window = F.interpolate(coarse[None], (window_px, window_px), mode="bilinear")[0]
        height, width = min(size[0] - top, window_px), min(size[1] - left, window_px)
        total[:, top : top + height, left : left + width] += window[:, :height, :width]
        count[top : top + height, left : left + width] += 1
    return total / count
