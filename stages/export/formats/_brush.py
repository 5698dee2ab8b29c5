"""Label Studio's run lengths of brush masks."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import numpy.typing as npt

_WORD_BITS = 8
_SIZES = (3, 4, 8, 16)
"""Bits of a length, of which each run chooses one."""


def encoded_brush(pixels: npt.NDArray[np.bool_]) -> list[int]:
    """Encodes a mask (H, W) as Label Studio does: RGBA values of each pixel, in runs.

    A stream of bits: number of values (32), bits of a value - 1 (5), bits of the four lengths - 1
    (4 each); then blocks of: whether it is a run (1), which length (2), the length - 1, the value.

    Returns:
        Bytes as numbers.
    """
    bits = [f"{4 * pixels.size:032b}", f"{_WORD_BITS - 1:05b}"]
    bits += [f"{size - 1:04b}" for size in _SIZES]
    for value, own in groupby(np.ravel(pixels).tolist()):
        left = 4 * sum(1 for _ in own)  # the four channels of a pixel are equal
        while left:
            length = min(left, 2 ** _SIZES[-1])
            index = next(i for i, size in enumerate(_SIZES) if length <= 2**size)
            bits.append(f"1{index:02b}{length - 1:0{_SIZES[index]}b}{255 if value else 0:08b}")
            left -= length
    stream = "".join(bits)
    stream += "0" * (-len(stream) % 8)
    return [int(stream[start : start + 8], 2) for start in range(0, len(stream), 8)]
