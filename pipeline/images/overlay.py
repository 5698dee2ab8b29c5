"""Pictures of labels over images."""

from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

Bytes = npt.NDArray[np.uint8]

_OPACITY = 0.55
_GAP_PX = 4


def overlaid(pixels: Bytes, mask: Bytes, palette: Bytes) -> Bytes:
    """A mask in colours over an image; ignored pixels and black classes show the image, dimmed.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        mask: (h, w) uint8 of the same area, at any resolution; 255 = ignore.
        palette: (256, 3) uint8, as `Vocabulary.palette`.

    Returns:
        (H, W, 3) uint8.
    """
    colors = palette[resized(mask, pixels.shape[0], pixels.shape[1])]
    return np.asarray(pixels * (1 - _OPACITY) + colors * _OPACITY).astype(np.uint8)


def shaded(pixels: Bytes, confidence: Bytes) -> Bytes:
    """A confidence (h, w) uint8 as a grey picture of the image's size; white = certain."""
    grey = resized(confidence, pixels.shape[0], pixels.shape[1])
    return np.stack([grey] * 3, axis=-1)


def resized(mask: Bytes, height: int, width: int) -> Bytes:
    """A mask (h, w) uint8 at another resolution, nearest neighbour."""
    image = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
    return np.asarray(image)


def encoded(picture: Image.Image) -> bytes:
    """A picture as a PNG."""
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def sheet(rows: list[list[Bytes]]) -> Image.Image:
    """Pictures (H, W, 3) uint8 in rows on white; a row is as high as its highest picture."""
    height = sum(max(p.shape[0] for p in row) + _GAP_PX for row in rows) - _GAP_PX
    width = max(sum(p.shape[1] + _GAP_PX for p in row) for row in rows) - _GAP_PX
    canvas = Image.new("RGB", (width, height), "white")
    top = 0
    for row in rows:
        left = 0
        for picture in row:
            canvas.paste(Image.fromarray(picture), (left, top))
            left += picture.shape[1] + _GAP_PX
        top += max(p.shape[0] for p in row) + _GAP_PX
    return canvas
