"""Decoding of untrusted images and label files into defined arrays."""

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.errors import DataError

MAX_BYTES = 256 * 2**20
MAX_PIXELS = 100_000_000
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

Image.MAX_IMAGE_PIXELS = None  # MAX_PIXELS is checked before any pixel is decoded


class UnreadableImageError(Exception):
    """An image or label file that cannot become an array; the text says why."""


@dataclass(frozen=True)
class DecodedImage:
    """An image file's pixels.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, upright.
        format: What the file really is: JPEG, PNG, ...
    """

    pixels: npt.NDArray[np.uint8]
    format: str


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, within `MAX_BYTES`.

    Raises:
        UnreadableImageError: It is missing, empty, no plain file, or too large.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise UnreadableImageError("not a plain file")
        if size > MAX_BYTES:
            raise UnreadableImageError(f"{size:,} bytes; at most {MAX_BYTES:,} are read")
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableImageError(f"cannot be read: {error.strerror}") from error
    if not content:
        raise UnreadableImageError("the file is empty")
    return content


@contextmanager
def readable(
    path: Path, fix: str = "put it back, then run `maskmill run ingest`"
) -> Iterator[bytes]:
    """The bytes of a file that has to be readable, here and inside the block that decodes it.

    Args:
        path: The file.
        fix: What would be right; the default suits files that ingest could read.

    Raises:
        DataError: It cannot be read, or the block cannot decode it; names the file.
    """
    try:
        yield read_bytes(path)
    except UnreadableImageError as error:
        raise DataError(str(error), where=str(path), fix=fix) from error


def content_id(content: bytes) -> str:
    """First 16 hex digits of the SHA-256 of a file's bytes."""
    return hashlib.sha256(content).hexdigest()[:16]


def decode_image(content: bytes) -> DecodedImage:
    """Decodes any image Pillow knows into upright 8-bit RGB.

    Transparent pixels are laid over white, 16-bit grey is scaled to 8, of animations the first
    frame counts, EXIF orientation is applied.

    Raises:
        UnreadableImageError: Not an image, damaged, or over `MAX_PIXELS`.
    """
    with _opened(content) as image:
        found = image.format or "unknown"
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):
            values = np.asarray(upright).astype(np.int64)
            upright = Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8))
        if upright.has_transparency_data:
            layer = upright.convert("RGBA")
            upright = Image.new("RGBA", layer.size, "white")
            upright.alpha_composite(layer)
        return DecodedImage(np.asarray(upright.convert("RGB")), found)


def decode_labels(content: bytes) -> npt.NDArray[np.integer]:
    """Decodes a label file without touching its values.

    Returns:
        (H, W) pixel values or palette indices, or (H, W, 3) uint8 where the file holds colours.

    Raises:
        UnreadableImageError: Not an image, damaged, over `MAX_PIXELS`, or not of whole numbers.
    """
    with _opened(content) as image:
        if image.mode == "F":
            raise UnreadableImageError("its pixels are fractions; labels are whole numbers")
        if image.mode in ("RGBA", "CMYK", "YCbCr", "LAB", "HSV"):
            return np.asarray(image.convert("RGB"))
        values = np.asarray(image.getchannel(0) if image.mode in ("LA", "PA") else image)
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
def _opened(content: bytes) -> Iterator[Image.Image]:
    """Opens bytes as an image; whatever Pillow raises inside becomes `UnreadableImageError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of damaged metadata nobody asked for
            with Image.open(BytesIO(content), formats=_formats()) as image:
                if image.width * image.height > MAX_PIXELS:
                    size = f"{image.width} x {image.height} pixels"
                    raise UnreadableImageError(f"{size}; at most {MAX_PIXELS:,} are decoded")
                image.load()
                yield image
    except UnreadableImageError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImageError("not an image of a known format") from error
    except Exception as error:  # plugins raise whatever they run into: RuntimeError, KeyError, ...
        raise UnreadableImageError(f"damaged: {error}") from error


@cache
def _formats() -> tuple[str, ...]:
    """The formats of the web that this Pillow reads; EPS, say, would be run as a program."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)
