"""Batches of noise for labelers."""

import torch

from stages.pseudolabel.labelers.base import ImageBatch


def batch_of(*sizes: tuple[int, int], canvas: int = 64) -> ImageBatch:
    """Images of these heights and widths on square canvases; always the same."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.zeros(len(sizes), 3, canvas, canvas, dtype=torch.uint8)
    for image, (height, width) in zip(pixels, sizes, strict=True):
        noise = torch.randint(0, 256, (3, height, width), generator=generator)
        image[:, :height, :width] = noise.to(torch.uint8)
    return ImageBatch(pixels, sizes)
