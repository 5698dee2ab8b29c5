"""The kinds of files that a prediction is written to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.config.vocabulary import Vocabulary
from pipeline.images.overlay import encoded, overlaid
from pipeline.records.rows import PredictionRow

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """The prediction of one image at its own size.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, the image.
        probabilities: (C, H, W) float32 in [0, 1], of all classes.
        mask: (H, W) uint8 class ids.
        confidence: (H, W) float32 in [0, 1], the probability of the class.
    """

    pixels: Bytes
    probabilities: Floats
    mask: Bytes
    confidence: Floats

    def columns(self) -> PredictionRow:
        """The columns of a row that describe it."""
        counts = np.bincount(self.mask.reshape(-1), minlength=256)
        ids = counts.nonzero()[0]
        return {
            "width": self.mask.shape[1],
            "height": self.mask.shape[0],
            "class_ids": ids.tolist(),
            "class_fractions": (counts[ids] / self.mask.size).tolist(),
            "mean_confidence": float(self.confidence.mean()),
        }


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        folder: The folder of these files below the folder of results.
        ending: Ending of their names.
        encode: Turns a prediction into the bytes of its file.
    """

    folder: str
    ending: str
    encode: Callable[[Prediction, Vocabulary], bytes]

    def file(self, name: str) -> str:
        """The path of the file of an image, below the folder of results."""
        return f"{self.folder}/{name}{self.ending}"


def _mask(prediction: Prediction, vocabulary: Vocabulary) -> bytes:
    """Class ids as a palette PNG in the classes' colours."""
    picture = Image.fromarray(prediction.mask)
    picture.putpalette(vocabulary.palette.tobytes())
    return encoded(picture)


def _overlay(prediction: Prediction, vocabulary: Vocabulary) -> bytes:
    """The classes in colours over the image, as a JPEG."""
    buffer = BytesIO()
    picture = overlaid(prediction.pixels, prediction.mask, vocabulary.palette)
    Image.fromarray(picture).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _probabilities(prediction: Prediction, vocabulary: Vocabulary) -> bytes:
    """Arrays `probabilities` (C, H, W) float16 and `classes` (C,) text, as NumPy's .npz."""
    buffer = BytesIO()
    halves = prediction.probabilities.astype(np.float16)
    np.savez_compressed(buffer, probabilities=halves, classes=np.array(vocabulary.class_names))
    return buffer.getvalue()


def _json(prediction: Prediction, vocabulary: Vocabulary) -> bytes:
    """Each class that occurs with its share, mean confidence, box and mask as COCO's RLE."""
    from pycocotools import mask as coco

    height, width = prediction.mask.shape
    found: list[dict[str, Any]] = []
    for class_id in np.unique(prediction.mask):
        pixels = prediction.mask == class_id
        rle = coco.encode(np.asfortranarray(pixels.astype(np.uint8)))
        found.append(
            {
                "id": int(class_id),
                "name": vocabulary.class_names[class_id],
                "fraction": float(pixels.mean()),
                "mean_confidence": float(prediction.confidence[pixels].mean()),
                "bbox": [int(side) for side in coco.toBbox(rle)],
                "rle": {"size": [height, width], "counts": rle["counts"].decode()},
            }
        )
    return json.dumps({"width": width, "height": height, "classes": found}, indent=1).encode()


KINDS: Mapping[str, Kind] = {
    "masks": Kind("masks", ".png", _mask),
    "overlays": Kind("overlays", ".jpg", _overlay),
    "probabilities": Kind("probabilities", ".npz", _probabilities),
    "json": Kind("json", ".json", _json),
}
"""The kinds by the name that the option `--to` gives them."""
