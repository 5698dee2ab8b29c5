"""Run lengths of Label Studio's brush: a stream of bits that holds the RGBA values of an image."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from stages.ingest.annotations.shapes import refuse

_CHANNELS = 4
_FIX = "draw the region again, or export the task again"


def brush_pixels(values: Any, width: int, height: int, where: str) -> npt.NDArray[np.bool_]:
    """Decodes a brush region.

    The stream, packed as by umbrella's rle-pack: 32 bits for the number of values, 5 for the bits
    of a value less one, 4 x 4 for the bits of four kinds of lengths less one. Then runs: a bit
    (1: one value for all; 0: a value for each), 2 bits for the kind of length, the length less one,
    and the values.

    Args:
        values: Its bytes, as a list of numbers.
        width: Width of the image.
        height: Its height.
        where: Place of the region, for errors.

    Returns:
        (height, width) bool: the pixels that are not fully transparent.

    Raises:
        DataError: The stream is damaged, or that of an image of another size.
    """
    if not isinstance(values, list) or not values:
        refuse("no run lengths", where, "write `rle`: a list of bytes")
    try:
        content = bytes(values)
    except (TypeError, ValueError):
        refuse("its run lengths are no bytes", where, "write numbers from 0 to 255")
    bits = _Bits(content)
    total, word = bits.read(32), bits.read(5) + 1
    lengths = [bits.read(4) + 1 for _ in range(4)]
    if total != width * height * _CHANNELS or word != 8:
        what = f"{total:,} values of {word} bits, but {width} x {height} pixels of RGBA"
        refuse(what, where, _FIX)
    found = np.zeros(total, np.uint8)
    at = 0
    while at < total:
        is_run = bits.read(1)
        end = at + 1 + bits.read(lengths[bits.read(2)])
        if end > total:
            refuse("its run lengths are damaged", where, _FIX)
        found[at:end] = bits.read(word) if is_run else bits.bytes(end - at)
        if bits.is_short:
            refuse("its run lengths are cut off", where, _FIX)
        at = end
    return found.reshape(height, width, _CHANNELS)[..., -1] > 0


class _Bits:
    """Reads a stream of bits; zeros after its end, which `is_short` tells."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    @property
    def is_short(self) -> bool:
        return self._at > 8 * len(self._content)

    def read(self, count: int) -> int:
        start, self._at = self._at, self._at + count
        last = -(-self._at // 8)
        piece = self._content[start // 8 : last].ljust(last - start // 8, b"\0")
        return int.from_bytes(piece) >> (8 * last - self._at) & ((1 << count) - 1)

    def bytes(self, count: int) -> npt.NDArray[np.uint8]:
        """(count,) uint8: the next bytes, which may begin anywhere."""
        start, self._at = self._at, self._at + 8 * count
        piece = self._content[start // 8 : -(-self._at // 8)].ljust(count + 1, b"\0")
        raw, shift = np.frombuffer(piece, np.uint8).astype(np.uint16), start % 8
        return ((raw[:count] << 8 | raw[1 : count + 1]) >> (8 - shift) & 255).astype(np.uint8)
