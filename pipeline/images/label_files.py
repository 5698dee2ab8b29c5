"""Decodes label files: pixel values or colours, unchanged; refuses files that changed them."""

from typing import cast

import numpy as np
import numpy.typing as npt
from PIL.Image import Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from pipeline.images import opening, webp
from pipeline.images.faults import UnreadableImageError
from pipeline.images.images import CEILINGS
from pipeline.images.limits import Limits

_MAYBE_LOSSY = {"AVIF": "AVIF", "JPEG2000": "JPEG 2000"}
"""Formats that keep values only with settings that no file shows, by Pillow's names."""
_ONE_CHANNEL = ("1", "L", "LA", "P", "PA")
"""Modes of images with a grey or a palette of at most 8 bits."""
_JPEG_IN_TIFF = ("jpeg", "tiff_jpeg")


def decode_labels(
    content: bytes, limits: Limits = CEILINGS, *, in_colors: bool = False
) -> npt.NDArray[np.integer]:
    """Decodes a label file, upright by its own EXIF orientation, with unchanged values.

    Args:
        content: Bytes of the file.
        limits: What it may cost.
        in_colors: Whether a file of 8 bits in one channel holds colours: those of its palette, or
            greys.

    Returns:
        (H, W) pixel values or palette indices, or (H, W, 3) uint8 for a file of colours. Alpha is
        dropped.

    Raises:
        UnreadableImageError: The bytes are not an image, damaged, over the limits, not integers, or
            not the values that were saved: lossy, scaled or cut to 8 bits.
        UnreachableImageError: There is not enough memory now.
    """

    def convert(image: ImageFile) -> npt.NDArray[np.integer]:
        _check_single(image)
        _check_format(image, content)
        turned = opening.upright(image)
        if image.format == "GIF" and _is_renumbered(turned):
            raise UnreadableImageError("GIF renumbers values: save PNG")
        channels = len(turned.getbands())
        if channels > 2 or (in_colors and turned.mode in _ONE_CHANNEL):
            return np.asarray(turned.convert("RGB"))
        values = np.asarray(turned.getchannel(0) if channels == 2 else turned)
        return values.astype(np.uint8) if values.dtype == np.bool_ else values

    return opening.decode(content, limits, convert)


def _check_format(image: ImageFile, content: bytes) -> None:
    """Refuses a file whose pixels are not the labels that someone saved."""
    if image.mode == "F":
        raise UnreadableImageError("its pixels are fractions; labels are whole numbers")
    if lossy := _lossy_kind(image, content):
        raise UnreadableImageError(f"{lossy} changes values: save PNG")
    if opening.is_cut_to_8_bits(image):
        what = "16 bits a channel, of which only 8 can be read"
        raise UnreadableImageError(f"{what}: save class ids as grey, or colours of 8 bits")
    if (maximum := _scaled_by(image)) is not None:
        what = f"its values are scaled, since its header has {maximum} as the largest one"
        raise UnreadableImageError(f"{what}: save PNG")


def _lossy_kind(image: ImageFile, content: bytes) -> str | None:
    """Name of the lossy compression of an opened image, if it has one."""
    if image.format in ("JPEG", "MPO"):
        return "JPEG"
    if image.format == "TIFF" and image.info.get("compression") in _JPEG_IN_TIFF:
        return "JPEG in a TIFF"
    if image.format == "WEBP" and not webp.is_lossless(content):
        return "lossy WebP"
    if image.format in _MAYBE_LOSSY:
        return _MAYBE_LOSSY[image.format]
    return None


def _scaled_by(image: ImageFile) -> int | None:
    """The largest value in the header of a PPM or PGM file, if Pillow scales its pixels by it."""
    if image.format != "PPM" or image.mode == "1" or image.tile[0][0] == "raw":
        return None
    _, maximum = cast(tuple[str, int], image.tile[0][3])
    return None if maximum == (65535 if image.mode == "I" else 255) else maximum


def _is_renumbered(image: Image) -> bool:
    """Whether the palette of a GIF has greys, as of class ids, at other places than their values.

    Encoders of GIF drop what is not used from a palette. Black and white are no class ids there.
    """
    if image.mode != "P":
        return False
    used = np.unique(np.asarray(image))
    colors = np.array(image.getpalette("RGB")).reshape(-1, 3)[used]
    greys = colors[:, 0]
    is_grey = (colors == greys[:, None]).all()
    return bool(is_grey and (greys != used).any() and {*greys.tolist()} - {0, 255})


def _check_single(image: ImageFile) -> None:
    """Refuses several pictures of one size; smaller ones in a TIFF are previews of the first."""
    frames = getattr(image, "n_frames", 1)
    if frames == 1:
        return
    size, equal = image.size, frames
    if isinstance(image, TiffImageFile):
        equal = 0
        for frame in range(frames):
            image.seek(frame)
            equal += image.size == size
        image.seek(0)
    if equal > 1:
        raise UnreadableImageError(f"holds {equal} pictures; a label file holds one")
