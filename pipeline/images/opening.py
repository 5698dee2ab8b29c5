"""Opens image bytes within limits; whatever a decoder raises becomes an `UnreadableImageError`."""

import time
import warnings
from collections.abc import Callable
from functools import cache
from io import BytesIO
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.Image import Transpose
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from pipeline.images import webp
from pipeline.images.faults import UnreadableImageError, from_decode_error
from pipeline.images.file_kinds import describe
from pipeline.images.jpeg import count_scans
from pipeline.images.limits import Limits
from pipeline.images.memory_budget import Budget

T = TypeVar("T")

SWAPS_SIDES = 5
"""The lowest EXIF orientation that exchanges width and height; all higher ones do too."""
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_MAX_SCANS = 100
"""Limit for a progressive JPEG; encoders write about 10. Each scan costs a pass over all pixels
(0.07 s for 100 million), and takes only 140 bytes."""
_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""The transposition for each EXIF orientation but 1, which means upright."""
_INVERSE = {
    Transpose.ROTATE_270: Transpose.ROTATE_90,
    Transpose.ROTATE_90: Transpose.ROTATE_270,
}
"""The transposition that undoes another; all others undo themselves."""

_ALL_MEMORY = 200_000_000
_IN_MEMORY = Budget(_ALL_MEMORY)
"""Pixels that all threads together may decode: converting a pixel takes up to 15 bytes."""

Image.MAX_IMAGE_PIXELS = None  # `Limits` are checked before any pixel is decoded


class _MayLackMemoryError(Exception):
    """A decoder failed while others were at work, maybe for lack of memory."""


def decode(
    content: bytes,
    limits: Limits,
    convert: Callable[[ImageFile], T],
) -> T:
    """Decodes an image and converts it.

    A failure that a lack of memory may have caused is tried again while no other thread decodes.

    Args:
        content: Bytes of the file.
        limits: What the image may cost.
        convert: Converts the opened image, of which no pixel is decoded yet; may refuse it.

    Raises:
        UnreadableImageError: The bytes are not an image, damaged, over the limits or refused.
        UnreachableImageError: There is not enough memory now.
    """
    try:
        return _decode(content, limits, convert, alone=False)
    except _MayLackMemoryError:
        return _decode(content, limits, convert, alone=True)


def orientation_of(content: bytes) -> int:
    """EXIF orientation of an image that was decoded before, 1 to 8; 1 without one."""
    with Image.open(BytesIO(content), formats=_formats()) as image:
        return orientation(image)


def palette_of(content: bytes) -> list[tuple[int, int, int]] | None:
    """RGB colours of the palette of an image that was decoded before; None without one."""
    with Image.open(BytesIO(content), formats=_formats()) as image:
        if image.mode not in ("P", "PA"):
            return None
        image.load()
        values = image.getpalette("RGB") or []
    return list(zip(values[::3], values[1::3], values[2::3], strict=True))


def orientation(image: ImageFile, *, is_in_front: bool = False) -> int:
    """EXIF orientation of an opened image, 1 to 8; 1 without one or with damaged EXIF.

    Decodes the image, as the metadata may lie behind the pixels, unless it `is_in_front`.
    """
    if not is_in_front and not isinstance(image, TiffImageFile):  # loading a TIFF turns it
        image.load()
    try:
        found = image.getexif().get(ExifTags.Base.Orientation)
    except MemoryError:
        raise
    except Exception:  # like a browser: damaged EXIF does not make the pixels bad
        return 1
    return found if isinstance(found, int) and found in _UPRIGHT else 1


def stored_size(content: bytes, limits: Limits) -> tuple[int, int, int]:
    """Width and height of an image as it is stored, and its EXIF orientation, 1 to 8.

    Raises:
        UnreadableImageError: See `decode`.
    """

    def convert(image: ImageFile) -> tuple[int, int, int]:
        width, height = image.size
        # The EXIF data of a JPEG is before its pixels, which need not be decoded then.
        turn = orientation(image, is_in_front=image.format in ("JPEG", "MPO"))
        if isinstance(image, TiffImageFile) and turn >= SWAPS_SIDES:
            width, height = height, width  # Pillow gives the size after turning
        return width, height, turn

    return decode(content, limits, convert)


def turned(
    pixels: npt.NDArray[np.uint8], orientation: int, *, back: bool = False
) -> npt.NDArray[np.uint8]:
    """Turns pixels (H, W) as an image of this EXIF orientation is turned, or back."""
    if (method := _UPRIGHT.get(orientation)) is None:
        return pixels
    method = _INVERSE.get(method, method) if back else method
    return np.asarray(Image.fromarray(pixels).transpose(method))


def upright(image: ImageFile) -> Image.Image:
    """Decodes an opened image and turns it by its EXIF orientation."""
    method = _UPRIGHT.get(orientation(image))
    if method is None or isinstance(image, TiffImageFile):
        return image
    return image.transpose(method)


def as_stored(image: ImageFile) -> Image.Image:
    """Decodes an opened image, and does not turn it by its EXIF orientation."""
    method = _UPRIGHT.get(orientation(image))
    if method is None or not isinstance(image, TiffImageFile):
        return image
    return image.transpose(_INVERSE.get(method, method))  # Pillow has turned it


def is_cut_to_8_bits(image: ImageFile) -> bool:
    """Whether Pillow reads only the upper 8 of the 16 bits of each channel of an opened image."""
    raw_modes = [str(arg) for tile in image.tile for arg in _as_tuple(tile[3])]
    return image.mode[0] not in "IF" and any(";16" in mode for mode in raw_modes)


def _as_tuple(arguments: object) -> tuple[object, ...]:
    return arguments if isinstance(arguments, tuple) else (arguments,)


def _decode(
    content: bytes,
    limits: Limits,
    convert: Callable[[ImageFile], T],
    *,
    alone: bool,
) -> T:
    pixels = webp.count_pixels(content)
    try:
        with warnings.catch_warnings():
            # Pillow warns about damaged metadata, which we do not use.
            warnings.simplefilter("ignore")
            timed = TimedBytes(content, limits.max_seconds)
            with Image.open(timed, formats=_formats()) as image:
                pixels = image.width * image.height
                _check_cost(image, content, limits)
                with _IN_MEMORY.held(_ALL_MEMORY if alone else pixels):
                    return convert(image)
    except UnreadableImageError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImageError(describe(content)) from error
    except Exception as error:  # plugins raise anything: RuntimeError, KeyError, ...
        if not alone:
            raise _MayLackMemoryError from error
        raise from_decode_error(error, pixels, len(content)) from error


def _check_cost(image: Image.Image, content: bytes, limits: Limits) -> None:
    if image.width * image.height > limits.max_pixels:
        size = f"{image.width} x {image.height} pixels"
        raise UnreadableImageError(f"{size}; at most {limits.max_pixels:,} are decoded")
    if image.format not in ("JPEG", "MPO") or content.count(b"\xff\xda") <= _MAX_SCANS:
        return  # fast, and enough for almost all files
    if (scans := count_scans(content)) > _MAX_SCANS:
        raise UnreadableImageError(f"{scans:,} scans; at most {_MAX_SCANS} are decoded")


class TimedBytes(BytesIO):
    """Bytes with a limit for the CPU time of the thread that reads them.

    Pillow reads the bytes of most formats in pieces of 64 KiB. An error between two pieces is the
    only way to stop a slow decoder in a thread. Time that a stopped process, other threads or a
    slow disk take does not count: it says nothing about the image.
    """

    def __init__(self, content: bytes, seconds: float) -> None:
        super().__init__(content)
        self._seconds = seconds
        self._end = time.thread_time() + seconds

    def read(self, size: int | None = -1, /) -> bytes:
        """See `BytesIO.read`; raises UnreadableImageError after the time limit."""
        if time.thread_time() > self._end:
            raise UnreadableImageError(f"takes more than {self._seconds:g} s to decode")
        return super().read(size)


@cache
def _formats() -> tuple[str, ...]:
    """The accepted formats that this Pillow supports. EPS is not accepted: it is a program."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)
