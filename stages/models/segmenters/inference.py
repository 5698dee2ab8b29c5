"""Scores of every pixel of an image by a protocol: windows, scales and mirror images."""

from collections.abc import Callable, Iterator
from functools import reduce
from itertools import groupby, product
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from stages.models.segmenters.normalization import normalize
from stages.models.segmenters.protocol import Protocol, SlidingWindow
from stages.models.segmenters.windows import starts

Part: TypeAlias = "slice[int, int, None]"
Network = Callable[[Tensor], Tensor]
"""From images (N, 3, h, w), float, normalized, to logits (N, C, h, w)."""


def pixel_scores(network: Network, image: Tensor, protocol: Protocol) -> Tensor:
    """Scores of one image; the class of a pixel is the one with the highest.

    Args:
        network: In eval mode, on the device of the image.
        image: (3, H, W) uint8 RGB.
        protocol: How.

    Returns:
        (C, H, W) float: logits where the protocol has one view and does not average probabilities,
        else probabilities.
    """
    height, width = image.shape[-2:]
    pixels = normalize(image[None].float() / 255)
    mirrors = (False, True)[: 1 + protocol.flip]
    views = list(product(protocol.sizes(height, width), mirrors))

    def score(size: tuple[int, int], mirror: bool) -> Tensor:
        view = _resized(pixels, *size, align_corners=False)
        found = _score(network, view.flip(-1) if mirror else view, protocol)[0]
        found = found.flip(-1) if mirror else found
        return _resized(found[None], height, width, align_corners=True)[0]

    if len(views) == 1:
        return score(*views[0])
    window = protocol.sliding_window
    are_logits = window is None or window.average == "logits"
    found = (score(*view) for view in views)  # one by one: each may take a gigabyte
    total = reduce(torch.add, (each.softmax(dim=0) if are_logits else each for each in found))
    return total / len(views)


def _score(network: Network, image: Tensor, protocol: Protocol) -> Tensor:
    """(1, C, H, W) of one image (1, 3, H, W)."""
    window = protocol.sliding_window
    if window is None:
        return network(image)
    return _slide(network, image, window, protocol.batch_size)


def _slide(network: Network, image: Tensor, window: SlidingWindow, batch_size: int) -> Tensor:
    """The mean over the windows that see a pixel.

    The published code sums probabilities instead, which has the same highest class; a mean can be
    resized, too.
    """
    height, width = image.shape[-2:]
    total, count = None, image.new_zeros(height, width)
    for boxes in _batches(height, width, window, batch_size):
        logits = network(torch.cat([image[..., rows, columns] for rows, columns in boxes]))
        found = logits.softmax(dim=1) if window.average == "probabilities" else logits
        if total is None:
            total = found.new_zeros(1, found.shape[1], height, width)
        for scores, (rows, columns) in zip(found, boxes, strict=True):
            total[0, :, rows, columns] += scores
            count[rows, columns] += 1
    assert total is not None
    return total / count


def _batches(
    height: int, width: int, window: SlidingWindow, batch_size: int
) -> Iterator[list[tuple[Part, Part]]]:
    """The windows as rows and columns of the image, those of equal size together."""

    def parts(length: int) -> list[Part]:
        first = starts(length, window.side_px, window.stride_px, window.mode)
        return [slice(start, min(start + window.side_px, length)) for start in first]

    def size(box: tuple[Part, Part]) -> tuple[int, int]:
        rows, columns = box
        return rows.stop - rows.start, columns.stop - columns.start

    for _, group in groupby(sorted(product(parts(height), parts(width)), key=size), key=size):
        boxes = list(group)
        for first in range(0, len(boxes), batch_size):
            yield boxes[first : first + batch_size]


def _resized(maps: Tensor, height: int, width: int, *, align_corners: bool) -> Tensor:
    """Maps (N, C, h, w), bilinearly; images as OpenCV does, scores as the published code does."""
    if maps.shape[-2:] == (height, width):
        return maps
    return F.interpolate(maps, (height, width), mode="bilinear", align_corners=align_corners)
