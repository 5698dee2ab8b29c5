"""Segmentation of whole images with a trained network."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.config.components import Choice
from pipeline.config.vocabulary import Vocabulary
from stages.models.segmenters.builders.base import Model
from stages.models.segmenters.inference import pixel_scores
from stages.models.segmenters.networks.base import SegmentationNetwork
from stages.models.segmenters.normalization import normalize
from stages.models.segmenters.protocol import WHOLE_IMAGE, Protocol
from stages.models.segmenters.weights import load_weights

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Predictor:
    """A trained network, ready to label whole images.

    Attributes:
        network: In eval mode, on the device.
        device: Where it is.
        protocol: How `predict` looks at an image.
    """

    network: SegmentationNetwork
    device: torch.device
    protocol: Protocol = WHOLE_IMAGE

    @classmethod
    def load(
        cls,
        model: Choice[Model],
        weights: Path,
        vocabulary: Vocabulary,
        device: torch.device,
        fix: str,
        protocol: Protocol = WHOLE_IMAGE,
    ) -> "Predictor":
        """Builds a network and fills it from the file its training ended with.

        Args:
            model: What was trained.
            weights: The file.
            vocabulary: The classes it was trained for.
            device: Where it will run.
            fix: What to do where the file cannot be loaded.
            protocol: How `predict` looks at an image.

        Raises:
            WeightsError: The file is missing, holds another network, or one for other classes.
        """
        network = model.create().build(vocabulary, pretrained=False)
        load_weights(weights, network, fix, vocabulary.class_names)
        return cls(network.to(device).eval(), device, protocol)

    def logits(self, image: Tensor) -> Tensor:
        """Scores one image at its own resolution, in one pass.

        Args:
            image: (3, H, W) uint8 RGB.

        Returns:
            (C, H, W) float.
        """
        with torch.inference_mode():
            logits: Tensor = self.network(normalize(image.to(self.device)[None].float() / 255))
        return logits[0]

    def predict(self, pixels: Bytes) -> Bytes:
        """Labels one image at its own resolution, as the protocol says.

        Args:
            pixels: (H, W, 3) uint8 RGB.

        Returns:
            (H, W) uint8 class ids.
        """
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).to(self.device)
        with torch.inference_mode():
            scores = pixel_scores(self.network, image, self.protocol)
        classes: Bytes = scores.argmax(dim=0).to("cpu", torch.uint8).numpy()
        return classes
