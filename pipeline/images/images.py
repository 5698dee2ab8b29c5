"""Reads and decodes untrusted images: from address to bytes to arrays."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.ImageFile import ImageFile

from pipeline.errors import DataError
from pipeline.files import storage, tar
from pipeline.images import faults, opening
from pipeline.images.faults import UnreachableImageError, UnreadableImageError
from pipeline.images.limits import Limits, ValueRange

CEILINGS = Limits(max_bytes=2**31, max_pixels=10**9, max_seconds=10**9)
"""Limits for reading images that ingest accepted by the limits of its config."""
_DEEPEST = 65535


@dataclass(frozen=True)
class DecodedImage:
    """An image file's pixels.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, upright.
        format: The true format of the file: JPEG, PNG, ...
        orientation: EXIF orientation of the stored pixels, 1 to 8.
        max_value: Largest value of an image of more than 8 bits a channel; None for others. In
            colours only its upper 8 bits are known, the others are taken as 1.
        is_scaled: Whether a value range applies: the image is grey, of more than 8 bits.
        min_value: Smallest value of such a grey image.
        is_clipped: Whether it has values outside 0 to 65535, which count as the nearest of them.
    """

    pixels: npt.NDArray[np.uint8]
    format: str
    orientation: int
    max_value: int | None
    is_scaled: bool
    min_value: int
    is_clipped: bool


_STORED = "stored"
"""Part of the id of an image that is not turned by its EXIF orientation."""


def read_bytes(uri: str, limits: Limits = CEILINGS, expected: str | None = None) -> bytes:
    """The bytes of an image or label file.

    All reads of images use this function, so a new kind of address needs a change only here.

    Args:
        uri: Path or s3:// address of a file, or of a file in a tar (see `pipeline.files.tar`).
        limits: The largest accepted number of bytes.
        expected: The `image_id` that ingest recorded; other bytes would be another image.

    Raises:
        MissingImageError: No file has this address.
        UnreachableImageError: The file exists, and may be readable later.
        UnreadableImageError: The file is empty, no plain file, too large, or has changed.
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
    except MemoryError as error:
        raise faults.out_of_memory() from error
    except OSError as error:
        if storage.is_fault(error):
            raise
        raise faults.from_read_error(error) from error
    except (tar.DamagedArchiveError, ValueError) as error:  # ValueError: a name with a NUL byte
        raise UnreadableImageError(f"cannot be read: {error}") from error
    if not content:
        raise UnreadableImageError("the file is empty")
    if expected is not None and content_id(content) != expected.partition("@")[0]:
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
    except (UnreachableImageError, MemoryError) as error:
        reason = faults.out_of_memory() if isinstance(error, MemoryError) else error
        raise DataError(str(reason), where=uri, fix="remove the cause and run again") from error
    except UnreadableImageError as error:
        raise DataError(str(error), where=uri, fix=fix) from error


def content_id(content: bytes) -> str:
    """First 16 hex digits of the SHA-256 of a file's bytes."""
    return hashlib.sha256(content).hexdigest()[:16]


def image_id(
    content: bytes, value_range: ValueRange | None = None, *, as_stored: bool = False
) -> str:
    """The id of an image: of its bytes, and of how they are read if that is not the usual way."""
    how = [] if value_range is None else [f"{value_range[0]}-{value_range[1]}"]
    how += [_STORED] if as_stored else []
    return "@".join([content_id(content), *([",".join(how)] if how else [])])


def range_of(image_id: str | None) -> ValueRange | None:
    """The value range that an image of this id is read by."""
    found = [each.split("-") for each in _how(image_id) if each != _STORED]
    return (int(found[0][0]), int(found[0][1])) if found else None


def is_as_stored(image_id: str | None) -> bool:
    """Whether an image of this id is read without turning it by its EXIF orientation."""
    return _STORED in _how(image_id)


def _how(image_id: str | None) -> list[str]:
    _, _, written = (image_id or "").partition("@")
    return written.split(",") if written else []


def decode_image(
    content: bytes,
    limits: Limits = CEILINGS,
    value_range: ValueRange | None = None,
    *,
    as_stored: bool = False,
) -> DecodedImage:
    """Decodes any image from the web to upright 8-bit RGB.

    Transparent pixels become white, 16-bit grey is scaled to 8 bits, animations give their first
    frame, EXIF orientation is applied, colour profiles are ignored.

    Args:
        content: Bytes of the file.
        limits: What the image may cost.
        value_range: The values of 16-bit grey that become black and white; by default the upper 8
            bits are kept.
        as_stored: Whether not to turn it by its EXIF orientation.

    Raises:
        UnreadableImageError: The bytes are not an image, damaged, over the limits, or have
            floating-point pixels, whose range is undefined.
        UnreachableImageError: There is not enough memory now.
    """

    def convert(image: ImageFile) -> DecodedImage:
        if image.mode == "F":
            raise UnreadableImageError("its pixels are fractions; images are of whole numbers")
        is_cut, max_value, min_value = opening.is_cut_to_8_bits(image), None, 0
        is_clipped = False
        orientation = opening.orientation(image)
        turned = opening.as_stored(image) if as_stored else opening.upright(image)
        if is_scaled := turned.mode.startswith("I"):
            stored = np.asarray(turned)
            values = stored.clip(0, _DEEPEST).astype(np.int32)
            is_clipped = bool((stored != values).any())
            min_value, max_value = int(values.min()), int(values.max())
            turned = Image.fromarray(_to_8_bits(values, value_range))
        if turned.has_transparency_data:
            layer = turned.convert("RGBA")
            turned = Image.new("RGBA", layer.size, "white")
            turned.alpha_composite(layer)
        pixels = np.asarray(turned.convert("RGB"))
        if is_cut:
            max_value = int(pixels.max()) << 8 | 255
        found = image.format or "unknown"
        return DecodedImage(pixels, found, orientation, max_value, is_scaled, min_value, is_clipped)

    return opening.decode(content, limits, convert)


def decode_pixels(content: bytes, image_id: str | None) -> npt.NDArray[np.uint8]:
    """Decodes an image that ingest accepted as ingest did, (H, W, 3) uint8 RGB, upright.

    Args:
        content: Bytes of the file.
        image_id: The id that ingest recorded, if any.

    Raises:
        UnreadableImageError: See `decode_image`.
    """
    as_stored = is_as_stored(image_id)
    return decode_image(content, value_range=range_of(image_id), as_stored=as_stored).pixels


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


def _to_8_bits(
    values: npt.NDArray[np.int32], value_range: ValueRange | None
) -> npt.NDArray[np.uint8]:
    if value_range is None:
        return (values >> 8).astype(np.uint8)
    low, high = value_range
    span = high - low
    scaled = (values.clip(low, high) - low) * 255 + span // 2
    return (scaled // span).astype(np.uint8)
