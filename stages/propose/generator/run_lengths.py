"""COCO's run lengths: pixels column by column, zeros first (methods.md section 10)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from pycocotools import mask as coco
from torch import Tensor

Counts = npt.NDArray[np.int64]


def run_lengths(masks: Tensor) -> list[Counts]:
    """The run lengths of masks.

    Args:
        masks: (M, H, W) bool, on any device.

    Returns:
        Of each its counts, whose sum is H W; the first one counts zeros and may be 0.
    """
    pixels = masks.mT.flatten(1)
    before = torch.cat([pixels.new_zeros(len(pixels), 1), pixels[:, :-1]], dim=1)
    changes = (pixels != before).nonzero().cpu().numpy()  # (changes, 2), mask by mask
    limits = np.searchsorted(changes[:, 0], np.arange(len(masks) + 1))
    size = pixels.shape[1]
    return [
        np.diff(changes[start:stop, 1], prepend=0, append=size) for start, stop in pairwise(limits)
    ]


def area(counts: Counts) -> int:
    """Pixels of the mask."""
    return int(counts[1::2].sum())


def compress(counts: Counts, height: int, width: int) -> str:
    """As pycocotools writes them."""
    plain = {"size": [height, width], "counts": counts.tolist()}
    text: str = coco.frPyObjects(plain, height, width)["counts"].decode()
    return text


def decode(counts: Counts, height: int, width: int) -> npt.NDArray[np.bool_]:
    """The mask, (H, W)."""
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T
