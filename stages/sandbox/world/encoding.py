"""Scenes as the files that a user would have."""

from io import BytesIO

import numpy as np
from PIL import Image

from stages.sandbox.world.world import Scene


def encoded_image(scene: Scene, ending: str) -> bytes:
    """The image as a file that ends so: .jpg or .png."""
    buffer = BytesIO()
    if ending == ".jpg":
        Image.fromarray(scene.image).save(buffer, "JPEG", quality=90)
    else:
        Image.fromarray(scene.image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def encoded_classes(scene: Scene) -> bytes:
    """The label file: a PNG of class ids."""
    buffer = BytesIO()
    Image.fromarray(scene.classes.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
