"""Encodes scenes as image and label files."""

from io import BytesIO

import numpy as np
from PIL import Image

from stages.sandbox.world.world import Scene


def encoded_image(scene: Scene, ending: str) -> bytes:
    """Encodes the image; the file name's ending is .jpg or .png."""
    buffer = BytesIO()
    if ending == ".jpg":
        Image.fromarray(scene.image).save(buffer, "JPEG", quality=90)
    else:
        Image.fromarray(scene.image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def encoded_classes(scene: Scene) -> bytes:
    """Encodes the label file, a PNG of class ids."""
    buffer = BytesIO()
    Image.fromarray(scene.classes.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
