"""Logits of SAM's decoder at the size of the image, as `Sam.postprocess_masks` makes them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

_BLOCK_PX = 64  # of the output; short enough to leave most of the matrix, which is zeros, out


class _Block(NamedTuple):
    """What some neighbouring output pixels of a line are made of.

    Attributes:
        outputs: Which pixels they are.
        inputs: Which pixels they are made of.
        weights: (outputs, inputs).
    """

    outputs: slice
    inputs: slice
    weights: Tensor


class MaskResampler:
    """Scales masks to the encoder's input, cuts the padding off, scales to the image.

    Both steps are bilinear, so together they are one sparse matrix for rows and one for columns,
    and neither the square of the encoder's size nor its padding is ever computed.

    Args:
        mask_px: Height and width of the decoder's masks.
        padded_px: Side of the encoder's input.
        unpadded_px: Height and width of the image within it.
        image_px: Height and width of the image itself.
        device: Of the masks.
    """

    def __init__(
        self,
        mask_px: tuple[int, int],
        padded_px: int,
        unpadded_px: tuple[int, int],
        image_px: tuple[int, int],
        device: torch.device,
    ) -> None:
        self._image_px = image_px
        self._rows, self._columns = (
            _blocks(_matrix(before, padded_px, between, after, device))
            for before, between, after in zip(mask_px, unpadded_px, image_px, strict=True)
        )

    def __call__(self, masks: Tensor) -> Tensor:
        """(M, h, w) logits of the decoder to (M, H, W)."""
        height, width = self._image_px
        wide = masks.new_empty(*masks.shape[:2], width)
        for block in self._columns:
            wide[..., block.outputs] = masks[..., block.inputs] @ block.weights.T
        high = masks.new_empty(len(masks), height, width)
        for block in self._rows:
            high[:, block.outputs] = block.weights @ wide[:, block.inputs]
        return high


def _matrix(before: int, padded: int, between: int, after: int, device: torch.device) -> Tensor:
    """(after, before) of one axis: what becomes of lines that are 1 at one pixel and else 0."""
    ones = torch.eye(before, device=device)[:, None]
    cut = functional.interpolate(ones, padded, mode="linear")[..., :between]
    return functional.interpolate(cut, after, mode="linear")[:, 0].T


def _blocks(matrix: Tensor) -> list[_Block]:
    blocks = []
    for start in range(0, len(matrix), _BLOCK_PX):
        outputs = slice(start, min(start + _BLOCK_PX, len(matrix)))
        used = matrix[outputs].any(0).nonzero()[:, 0]
        inputs = slice(int(used[0]), int(used[-1]) + 1)
        blocks.append(_Block(outputs, inputs, matrix[outputs, inputs].contiguous()))
    return blocks
