"""A trained network that predicts images: `maskmill.load`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from pipeline.errors import DataError
from pipeline.images import images
from pipeline.images.overlay import overlaid
from stages.models.device import pick_device
from stages.models.segmenters.description import read_description
from stages.models.segmenters.model_file import load_model_file

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Prediction:
    """What a network sees in an image.

    Attributes:
        mask: (H, W) uint8 class ids.
        confidence: (H, W) float32 in [0, 1]: the probability of that class.
        overlay: The mask in the colours of the classes over the image.
    """

    mask: Bytes
    confidence: npt.NDArray[np.float32]
    overlay: Image.Image


class Model:
    """A trained network.

    Args:
        path: The model file.
        device: cpu, cuda, mps, or auto.

    Attributes:
        classes: Class names in the order of their ids.
    """

    def __init__(self, path: Path, device: str) -> None:
        description = read_description(path)
        self.classes: tuple[str, ...] = description.vocabulary.class_names
        self._palette = description.vocabulary.palette
        self._predictor = load_model_file(path, pick_device(device))

    def predict(self, image: str | Path | Image.Image | Bytes) -> Prediction:
        """Predicts an image at its own size, as the training's protocol says.

        Args:
            image: A file, a Pillow image, or (H, W, 3) uint8 RGB.

        Raises:
            DataError: The file cannot be read, or the array is no image.
        """
        pixels = _pixels(image)
        mask, confidence = self._predictor.label(torch.from_numpy(pixels.copy()).permute(2, 0, 1))
        classes: Bytes = mask.to("cpu", torch.uint8).numpy()
        overlay = Image.fromarray(overlaid(pixels, classes, self._palette))
        return Prediction(classes, confidence.float().cpu().numpy(), overlay)


def _pixels(image: str | Path | Image.Image | Bytes) -> Bytes:
    if isinstance(image, str | Path):
        with images.readable(str(image)) as content:
            return images.decode_pixels(content, None)
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        what = f"an array of shape {image.shape} and type {image.dtype}"
        raise DataError(what, where="predict", fix="give (H, W, 3) uint8 RGB")
    return image
