"""COCO's run-length encoding: pixels column by column, the first run counts zeros."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from pycocotools import mask as coco
from torch import Tensor

Counts = npt.NDArray[np.int64]


def run_lengths(masks: Tensor) -> list[Counts]:
    """Encodes masks as run lengths.

    Args:
        masks: (M, H, W) bool, on any device.

    Returns:
        The counts of each mask. Their sum is H W; the first count may be 0.
    """
    pixels = masks.mT.flatten(1)
    before = torch.cat([pixels.new_zeros(len(pixels), 1), pixels[:, :-1]], dim=1)
    changes = (pixels != before).nonzero().cpu().numpy()  # (changes, 2), mask by mask
    bounds = np.searchsorted(changes[:, 0], np.arange(len(masks) + 1))
    size = pixels.shape[1]
    return [
        np.diff(changes[start:stop, 1], prepend=0, append=size) for start, stop in pairwise(bounds)
    ]


def area(counts: Counts) -> int:
    """Number of pixels in the mask."""
    return int(counts[1::2].sum())


def compress(counts: Counts, height: int, width: int) -> str:
    """Compresses counts to the string of pycocotools."""
    plain = {"size": [height, width], "counts": counts.tolist()}
    text: str = coco.frPyObjects(plain, height, width)["counts"].decode()
    return text


def decode(counts: Counts, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Decodes counts to a mask, (H, W) bool."""
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T
