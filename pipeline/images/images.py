"""Reads and decodes untrusted images and label files: from address to bytes to arrays."""

import errno
import hashlib
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.Image import Transpose

from pipeline.errors import DataError
from pipeline.files import storage, tar
from pipeline.images.file_kinds import describe
from pipeline.images.jpeg import count_scans
from pipeline.images.limits import Limits
from pipeline.images.memory_budget import Budget

_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_PASSING = {
    *(errno.EACCES, errno.EPERM, errno.EBUSY, errno.EAGAIN),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM),
}
"""Errors that may be gone in the next run, though the stamp of the file is unchanged."""
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
"""The transposition for each EXIF orientation."""

_IN_MEMORY = Budget(200_000_000)
"""Pixels that all threads together may decode: converting a pixel takes up to 15 bytes."""

Image.MAX_IMAGE_PIXELS = None  # `Limits` are checked before any pixel is decoded


CEILINGS = Limits(max_bytes=2**31, max_pixels=10**9, max_seconds=10**9)
"""Limits for reading images that ingest accepted by the limits of its config."""


class UnreadableImageError(Exception):
    """An image or label file cannot be decoded; the text says why."""


class UnreachableImageError(UnreadableImageError):
    """A file exists but cannot be read now, e.g. without permission."""


@dataclass(frozen=True)
class DecodedImage:
    """An image file's pixels.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, upright.
        format: The true format of the file: JPEG, PNG, ...
    """

    pixels: npt.NDArray[np.uint8]
    format: str


def read_bytes(uri: str, limits: Limits = CEILINGS, expected: str | None = None) -> bytes:
    """The bytes of an image or label file.

    All reads of images use this function, so a new kind of address needs a change only here.

    Args:
        uri: Path or s3:// address of a file, or of a file in a tar (see `pipeline.files.tar`).
        limits: The largest accepted number of bytes.
        expected: The `content_id` that ingest recorded; other bytes would be another image.

    Raises:
        UnreachableImageError: The file exists, and may be readable later.
        UnreadableImageError: The file is missing, empty, no plain file, too large, or has changed.
        OSError: The disk is gone, which says nothing about the file.
        StorageError: The object store does not answer, which says nothing about the file.
    """
    member = tar.parse(uri)
    try:
        if member is not None and member.size > limits.max_bytes:
            raise storage.TooLargeError(member.size)
        content = storage.read_bytes(uri, limits.max_bytes) if member is None else tar.read(member)
    except storage.TooLargeError as error:
        what = f"{error.size:,} bytes; at most {limits.max_bytes:,} are read"
        raise UnreadableImageError(what) from error
    except storage.NoPlainFileError as error:
        raise UnreadableImageError(str(error)) from error
    except OSError as error:
        if storage.is_fault(error):
            raise
        kind = UnreachableImageError if error.errno in _PASSING else UnreadableImageError
        raise kind(f"cannot be read: {error.strerror}") from error
    except (tar.DamagedArchiveError, ValueError) as error:  # ValueError: a name with a NUL byte
        raise UnreadableImageError(f"cannot be read: {error}") from error
    if not content:
        raise UnreadableImageError("the file is empty")
    if expected is not None and content_id(content) != expected:
        raise UnreadableImageError("changed since `maskmill run ingest` read it")
    return content


@contextmanager
def readable(
    uri: str,
    fix: str = "put it back, then run `maskmill run ingest`",
    expected: str | None = None,
) -> Iterator[bytes]:
    """The bytes of a file that must be readable and decodable by the block.

    Args:
        uri: See `read_bytes`.
        fix: What to do; the default is for files that ingest could read.
        expected: See `read_bytes`.

    Raises:
        DataError: The file cannot be read, or the block cannot decode it; names the file.
    """
    try:
        yield read_bytes(uri, expected=expected)
    except UnreadableImageError as error:
        raise DataError(str(error), where=uri, fix=fix) from error


def content_id(content: bytes) -> str:
    """First 16 hex digits of the SHA-256 of a file's bytes."""
    return hashlib.sha256(content).hexdigest()[:16]


def decode_image(content: bytes, limits: Limits = CEILINGS) -> DecodedImage:
    """Decodes any image from the web to upright 8-bit RGB.

    Transparent pixels become white, 16-bit grey is scaled to 8 bits, animations give their first
    frame, EXIF orientation is applied, colour profiles are ignored.

    Raises:
        UnreadableImageError: The bytes are not an image, damaged, over the limits, or have
            floating-point pixels, whose range is undefined.
    """
    with _opened(content, limits) as image:
        if image.mode == "F":
            raise UnreadableImageError("its pixels are fractions; images are of whole numbers")
        found = image.format or "unknown"
        upright = _upright(image)
        if upright.mode.startswith("I"):
            values = np.asarray(upright).astype(np.int64)
            upright = Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8))
        if upright.has_transparency_data:
            layer = upright.convert("RGBA")
            upright = Image.new("RGBA", layer.size, "white")
            upright.alpha_composite(layer)
        return DecodedImage(np.asarray(upright.convert("RGB")), found)


def decode_labels(content: bytes, limits: Limits = CEILINGS) -> npt.NDArray[np.integer]:
    """Decodes a label file, upright like its image, with unchanged values.

    Returns:
        (H, W) pixel values or palette indices, or (H, W, 3) uint8 for a file of colours.

    Raises:
        UnreadableImageError: The bytes are not an image, damaged, over the limits, or not integers.
    """
    with _opened(content, limits) as image:
        if image.mode == "F":
            raise UnreadableImageError("its pixels are fractions; labels are whole numbers")
        upright = _upright(image)
        if upright.mode in ("RGBA", "CMYK", "YCbCr", "LAB", "HSV"):
            return np.asarray(upright.convert("RGB"))
        values = np.asarray(upright.getchannel(0) if upright.mode in ("LA", "PA") else upright)
        return values.astype(np.uint8) if values.dtype == np.bool_ else values


def fitted_size(height: int, width: int, size_px: int) -> tuple[int, int]:
    """(height, width) of an image scaled so that its long side is `size_px`; at least 1 each."""
    scale = size_px / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def fit(pixels: npt.NDArray[np.uint8], size_px: int) -> npt.NDArray[np.uint8]:
    """Scales (H, W, 3) pixels to `fitted_size`, bilinear with antialiasing."""
    height, width = fitted_size(pixels.shape[0], pixels.shape[1], size_px)
    if (height, width) == (pixels.shape[0], pixels.shape[1]):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


@contextmanager
def _opened(content: bytes, limits: Limits) -> Iterator[Image.Image]:
    """Opens bytes as an image; errors of Pillow become `UnreadableImageError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # Pillow warns about damaged metadata, which we do not use
            bytes_in_time = _BytesInTime(content, limits.max_seconds)
            bytes_in_time.start()
            with Image.open(bytes_in_time, formats=_formats()) as image:
                if image.width * image.height > limits.max_pixels:
                    size = f"{image.width} x {image.height} pixels"
                    raise UnreadableImageError(f"{size}; at most {limits.max_pixels:,} are decoded")
                if image.format in ("JPEG", "MPO"):
                    _check_scans(content)
                with _IN_MEMORY.held(image.width * image.height):
                    bytes_in_time.start()
                    image.load()
                    yield image
    except UnreadableImageError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImageError(describe(content)) from error
    except MemoryError as error:
        raise UnreadableImageError("decoding it takes more memory than there is") from error
    except Exception as error:  # plugins raise anything: RuntimeError, KeyError, ...
        raise UnreadableImageError(f"damaged: {error}") from error


def _check_scans(content: bytes) -> None:
    if content.count(b"\xff\xda") <= _MAX_SCANS:  # fast, and enough for almost all files
        return
    if (scans := count_scans(content)) > _MAX_SCANS:
        raise UnreadableImageError(f"{scans:,} scans; at most {_MAX_SCANS} are decoded")


class _BytesInTime(BytesIO):
    """Bytes with a time limit for reading them.

    Pillow reads the bytes of most formats in pieces of 64 KiB. An error between two pieces is the
    only way to stop a slow decoder in a thread.
    """

    def __init__(self, content: bytes, seconds: float) -> None:
        super().__init__(content)
        self._seconds = seconds
        self._end = 0.0

    def start(self) -> None:
        """Restarts the time limit."""
        self._end = time.monotonic() + self._seconds

    def read(self, size: int | None = -1, /) -> bytes:
        if time.monotonic() > self._end:
            raise UnreadableImageError(f"takes more than {self._seconds:g} s to decode")
        return super().read(size)


def _upright(image: Image.Image) -> Image.Image:
    """The image turned by its EXIF orientation; unchanged without one or with damaged EXIF."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # like a browser: damaged EXIF does not make the pixels bad
        return image
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


@cache
def _formats() -> tuple[str, ...]:
    """The accepted formats that this Pillow supports. EPS is not accepted: it is a program."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)
