"""An image with its label, at the image's own size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.config.vocabulary import IGNORE
from pipeline.images.overlay import encoded

Bytes = npt.NDArray[np.uint8]

_IGNORED = (224, 224, 192)
"""Colour of ignored pixels, as in label files of Pascal VOC."""
_COPIED = {"JPEG": ".jpg", "PNG": ".png"}
"""Formats that every tool reads alike, and the ending of their files."""


@dataclass(frozen=True)
class Sample:
    """An image with its label.

    Attributes:
        name: Its name in the export, without an ending; different for each image.
        split: "train" or "val".
        content: Bytes of its file.
        pixels: (H, W, 3) uint8 RGB, upright.
        mask: (H, W) uint8 class ids, 255 = ignore.
    """

    name: str
    split: str
    content: bytes
    pixels: Bytes
    mask: Bytes

    @cached_property
    def file(self) -> tuple[str, bytes]:
        """The ending and the bytes of an image file that every tool reads as these pixels.

        It is the file itself if it is a JPEG or a PNG that needs neither turning nor conversion;
        else a PNG of the pixels.
        """
        with Image.open(BytesIO(self.content)) as image:
            ending = _COPIED.get(image.format or "")
            is_plain = image.mode == "RGB" and image.getexif().get(0x0112, 1) == 1
            is_plain = is_plain and image.size == self.pixels.shape[1::-1]
            is_plain = is_plain and getattr(image, "n_frames", 1) == 1
        if ending is not None and is_plain and "transparency" not in image.info:
            return ending, self.content
        return ".png", self.png

    @cached_property
    def png(self) -> bytes:
        """The pixels as a PNG."""
        return encoded(Image.fromarray(self.pixels))


def mask_png(mask: Bytes, palette: Bytes | None = None) -> bytes:
    """A mask as a PNG of one channel, in the colours of a palette (256, 3) if there is one."""
    picture = Image.fromarray(mask)
    if palette is not None:
        colors = palette.copy()
        colors[IGNORE] = _IGNORED
        picture.putpalette(colors.tobytes())
    return encoded(picture)
