"""Segmentation of whole images with a trained network."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline import images
from pipeline.components import Choice
from pipeline.vocabulary import Vocabulary
from stages.device import pick_device
from stages.train.checkpoint import load_weights
from stages.train.models.base import Model
from stages.train.networks.base import SegmentationNetwork
from stages.train.photometric import normalize

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Predictor:
    """A trained network, ready to label whole images.

    Attributes:
        network: In eval mode, on the device.
        device: Where it is.
    """

    network: SegmentationNetwork
    device: torch.device

    @classmethod
    def load(
        cls, model: Choice[Model], weights: Path, vocabulary: Vocabulary, device: str
    ) -> "Predictor":
        """Builds a network and fills it from the file its training ended with.

        Raises:
            WeightsError: The file is missing or holds another network.
        """
        network = model.create().build(vocabulary.num_classes)
        load_weights(weights, network)
        place = pick_device(device)
        return cls(network.to(place).eval(), place)

    def predict(self, pixels: Bytes) -> Bytes:
        """Labels one image at its own resolution, in one pass.

        Args:
            pixels: (H, W, 3) uint8 RGB.

        Returns:
            (H, W) uint8 class ids.
        """
        batch = torch.from_numpy(pixels.copy()).to(self.device).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            logits = self.network(normalize(batch))
        classes: Bytes = logits.argmax(dim=1)[0].to("cpu", torch.uint8).numpy()
        return classes


def read_pixels(row: dict[str, Any]) -> Bytes:
    """The pixels of an images row.

    Raises:
        DataError: The file can no longer be read.
    """
    with images.readable(row["uri"], expected=row["image_id"]) as content:
        return images.decode_image(content).pixels
