"""Masks of the pixels to paste from one image into another: boxes (CutMix), classes (ClassMix)."""

import torch
from torch import Generator, Tensor

from pipeline.config.vocabulary import IGNORE
from stages.train.data.random_numbers import StepRandom

PROBABILITY = 0.5
AREA = (0.02, 0.4)
"""Least and largest share of the image that a box covers."""
ASPECT = (0.3, 1 / 0.3)
"""Least and largest height of a box over its width."""


def cutmix_boxes(size_px: int, random: StepRandom, purpose: str) -> Tensor:
    """Draws one random box an image, empty for about half of the images, as UniMatch does.

    Args:
        size_px: Side S of the images.
        random: The random numbers of the step.
        purpose: What they are for.

    Returns:
        (B, S, S) bool, True inside the box. A box whose sides round down to 0 pixels is empty.
    """
    return random.of_images(purpose, lambda generator: cutmix_box(size_px, generator))


def cutmix_box(size_px: int, generator: Generator) -> Tensor:
    """A random box (arXiv 1905.04899), or none: (S, S) bool.

    The area is drawn first, then aspect and corner until the box lies inside the image. A square
    box lies inside at more than one corner in eight, so few draws are needed at any size.
    """
    box = torch.zeros(size_px, size_px, dtype=torch.bool)
    chance, share = torch.rand(2, generator=generator).tolist()
    if chance < PROBABILITY:
        area_px = _between(AREA, share) * size_px**2
        box[_place(area_px, size_px, generator)] = True
    return box


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


def half_of_the_classes(mask: Tensor, random: StepRandom, purpose: str) -> Tensor:
    """The pixels of a random half, rounded down, of each image's classes (arXiv 2007.07936).

    Args:
        mask: (B, S, S) int64 class ids, 255 = ignore: never chosen.
        random: The random numbers of the step.
        purpose: What they are for.

    Returns:
        (B, S, S) bool.
    """
    ranks = random.of_images(purpose, lambda generator: torch.rand(256, generator=generator))
    chosen = torch.zeros(len(mask), 256, dtype=torch.bool)
    for image, rank, own in zip(mask, ranks, chosen, strict=True):
        present = image.unique().cpu()
        present = present[present != IGNORE]
        own[present[rank[present].argsort()[: len(present) // 2]]] = True
    return chosen.to(mask.device).gather(1, mask.flatten(1)).view(mask.shape)


def paste(images: Tensor, others: Tensor, box: Tensor) -> Tensor:
    """Images with the pixels inside a box taken from other images.

    For labels see `PseudoLabels.pasted`; for validity maps, ``torch.where(box, other, own)``.

    Args:
        images: (B, C, S, S).
        others: (B, C, S, S) of the same type.
        box: (B, S, S) bool, True = take from `others`.
    """
    return torch.where(box.unsqueeze(1), others, images)
