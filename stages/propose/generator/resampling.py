"""Scales logits of SAM's decoder to the size of the image, as `Sam.postprocess_masks` does."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

_BLOCK_PX = 64  # output pixels a block; short enough to skip most zeros of the matrix


class _Block(NamedTuple):
    """Weights that compute some neighbouring output pixels of a line.

    Attributes:
        outputs: The output pixels.
        inputs: The input pixels that they depend on.
        weights: (outputs, inputs).
    """

    outputs: slice
    inputs: slice
    weights: Tensor


class MaskResampler:
    """Scales masks to the encoder's input, cuts the padding off, and scales them to the image.

    Both scalings are bilinear, so together they are one sparse matrix for rows and one for columns.
    This avoids computing masks at the encoder's size, with padding.

    Args:
        mask_px: Height and width of the decoder's masks.
        padded_px: Side of the encoder's input.
        unpadded_px: Height and width of the image in the encoder's input.
        image_px: Height and width of the image.
        device: Device of the masks.
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
        """Scales (M, h, w) logits of the decoder to (M, H, W)."""
        height, width = self._image_px
        wide = masks.new_empty(*masks.shape[:2], width)
        for block in self._columns:
            wide[..., block.outputs] = masks[..., block.inputs] @ block.weights.T
        high = masks.new_empty(len(masks), height, width)
        for block in self._rows:
            high[:, block.outputs] = block.weights @ wide[:, block.inputs]
        return high


def _matrix(before: int, padded: int, between: int, after: int, device: torch.device) -> Tensor:
    """The matrix (after, before) of one axis: the scaled unit vectors."""
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
