"""CutMix: pixels of one image, and their labels, pasted into another (arXiv 1905.04899)."""

import torch
from torch import Generator, Tensor

PROBABILITY = 0.5
AREA = (0.02, 0.4)
"""Least and largest share of the image that a box covers."""
ASPECT = (0.3, 1 / 0.3)
"""Least and largest height of a box over its width."""


def cutmix_boxes(count: int, size_px: int, generator: Generator) -> Tensor:
    """One random box an image, empty for about half of the images, as UniMatch draws them.

    The area is fixed first; then aspect and corner are drawn until the box lies inside the image.
    A square box lies inside at more than one corner in eight, so few draws are needed at any size.

    Args:
        count: Number of images B.
        size_px: Side S of the images.
        generator: Source of randomness, on the CPU.

    Returns:
        (B, S, S) bool, True inside the box; nowhere if its sides round down to 0 pixels.
    """
    boxes = torch.zeros(count, size_px, size_px, dtype=torch.bool)
    for box in boxes:
        chance, share = torch.rand(2, generator=generator).tolist()
        if chance < PROBABILITY:
            area_px = _between(AREA, share) * size_px**2
            box[_place(area_px, size_px, generator)] = True
    return boxes


def _place(area_px: float, size_px: int, generator: Generator) -> tuple[slice, slice]:
    """Rows and columns of a box of this area, anywhere inside the image."""
    while True:
        shape, top_share, left_share = torch.rand(3, generator=generator).tolist()
        aspect = _between(ASPECT, shape)
        height, width = int((area_px * aspect) ** 0.5), int((area_px / aspect) ** 0.5)
        top, left = int(top_share * size_px), int(left_share * size_px)
        if top + height <= size_px and left + width <= size_px:
            return slice(top, top + height), slice(left, left + width)


def _between(bounds: tuple[float, float], share: float) -> float:
    """The point at a share of the way from the lower bound to the upper one."""
    low, high = bounds
    return low + (high - low) * share


def paste(images: Tensor, partners: Tensor, box: Tensor) -> Tensor:
    """Images with the pixels inside a box taken from their partners.

    For labels see `PseudoLabels.pasted`; for validity maps, ``torch.where(box, partner, own)``.

    Args:
        images: (B, C, S, S).
        partners: (B, C, S, S) of the same type.
        box: (B, S, S) bool, True = take from the partner.
    """
    return torch.where(box.unsqueeze(1), partners, images)
