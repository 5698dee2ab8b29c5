"""Scores and probabilities of every pixel of an image by a protocol: windows, scales, flips."""

from collections.abc import Callable, Iterator
from functools import reduce
from itertools import groupby, product
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from stages.models.finite import finite_scores
from stages.models.segmenters.normalization import IMAGENET, Normalization, normalize
from stages.models.segmenters.protocol import Protocol, SlidingWindow
from stages.models.segmenters.windows import starts

Part: TypeAlias = "slice[int, int, None]"
Network = Callable[[Tensor], Tensor]
"""From images (N, 3, h, w), float, normalized, to logits (N, C, h, w)."""


def pixel_scores(
    network: Network, image: Tensor, protocol: Protocol, normalization: Normalization = IMAGENET
) -> Tensor:
    """Scores of one image; the class of a pixel is the one with the highest score.

    Args:
        network: In eval mode, on the device of the image.
        image: (3, H, W) uint8 RGB.
        protocol: How the image is predicted.
        normalization: What the network's images are normalized by.

    Returns:
        (C, H, W) float: logits if the protocol has one view and does not average probabilities,
        otherwise probabilities. `pixel_probabilities` always gives probabilities.

    Raises:
        NotFiniteError: A score is NaN or infinite.
    """
    height, width = image.shape[-2:]
    pixels = normalize(image[None].float() / 255, normalization)
    views = _views(protocol, height, width)

    def score(size: tuple[int, int], mirror: bool) -> Tensor:
        view = _resized(pixels, *size, align_corners=False)
        found = finite_scores(_score(network, view.flip(-1) if mirror else view, protocol)[0])
        found = found.flip(-1) if mirror else found
        return _resized(found[None], height, width, align_corners=True)[0]

    if len(views) == 1:
        return score(*views[0])
    are_logits = _averages_logits(protocol)
    found = (score(*view) for view in views)  # one by one: each may take a gigabyte
    total = reduce(torch.add, (each.softmax(dim=0) if are_logits else each for each in found))
    return total / len(views)


def pixel_probabilities(
    network: Network, image: Tensor, protocol: Protocol, normalization: Normalization = IMAGENET
) -> Tensor:
    """Probabilities (C, H, W) of the classes of each pixel; arguments as of `pixel_scores`."""
    scores = pixel_scores(network, image, protocol, normalization)
    has_one_view = len(_views(protocol, *image.shape[-2:])) == 1
    return scores.softmax(dim=0) if has_one_view and _averages_logits(protocol) else scores


def _views(protocol: Protocol, height: int, width: int) -> list[tuple[tuple[int, int], bool]]:
    """Sizes (height, width) that an image is predicted at, each with whether it is mirrored."""
    mirrors = (False, True)[: 1 + protocol.flip]
    return list(product(protocol.sizes(height, width), mirrors))


def _averages_logits(protocol: Protocol) -> bool:
    """Whether the scores of a single view are logits."""
    return protocol.sliding_window is None or protocol.sliding_window.average == "logits"


def _score(network: Network, image: Tensor, protocol: Protocol) -> Tensor:
    """Scores (1, C, H, W) of one view (1, 3, H, W)."""
    window = protocol.sliding_window
    if window is None:
        return network(image)
    return _slide(network, image, window, protocol.batch_size)


def _slide(network: Network, image: Tensor, window: SlidingWindow, batch_size: int) -> Tensor:
    """The mean over the windows that contain a pixel.

    The published code sums probabilities, which gives the same highest class; unlike a sum, a mean
    can be resized and averaged with other views.
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
    """Batches of windows of equal size, each as rows and columns of the image."""

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
    """Maps (N, C, h, w) resized bilinearly.

    Images are resized without aligned corners as OpenCV does it, scores with aligned corners as the
    published code does it.
    """
    if maps.shape[-2:] == (height, width):
        return maps
    return F.interpolate(maps, (height, width), mode="bilinear", align_corners=align_corners)
