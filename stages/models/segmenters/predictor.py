"""Predictions of a trained network for whole images."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stages.models.segmenters.inference import pixel_probabilities, pixel_scores
from stages.models.segmenters.normalization import IMAGENET, Normalization
from stages.models.segmenters.protocol import WHOLE_IMAGE, Protocol

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Predictor:
    """A trained network, ready to label whole images.

    Attributes:
        network: In eval mode, on the device.
        device: Where it is.
        protocol: How an image is predicted.
        normalization: What the network's images are normalized by.
    """

    network: nn.Module
    device: torch.device
    protocol: Protocol = WHOLE_IMAGE
    normalization: Normalization = IMAGENET

    def predict(self, pixels: Bytes) -> Bytes:
        """Predicts the classes of one image at its own resolution.

        Args:
            pixels: (H, W, 3) uint8 RGB.

        Returns:
            (H, W) uint8 class ids.
        """
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).to(self.device)
        with torch.inference_mode():
            scores = pixel_scores(self.network, image, self.protocol, self.normalization)
        classes: Bytes = scores.argmax(dim=0).to("cpu", torch.uint8).numpy()
        return classes

    def probabilities(self, image: Tensor) -> Tensor:
        """Predicts the probabilities of the classes of one image at its own resolution.

        Args:
            image: (3, H, W) uint8 RGB.

        Returns:
            (C, H, W) float in [0, 1], on the device.

        Raises:
            NotFiniteError: A score is NaN or infinite.
        """
        with torch.inference_mode():
            return pixel_probabilities(
                self.network, image.to(self.device), self.protocol, self.normalization
            )

    def label(self, image: Tensor, size: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """Predicts the classes of one image, and how probable they are.

        Args:
            image: (3, H, W) uint8 RGB.
            size: (h, w), the size of the label, to which probabilities are resized, antialiased;
                None: the image's own.

        Returns:
            (h, w) int64 class ids and (h, w) float probabilities of these classes, on the device.
        """
        found = self.probabilities(image)
        with torch.inference_mode():
            if size is not None and found.shape[1:] != size:
                found = F.interpolate(found[None], size, mode="bilinear", antialias=True)[0]
            confidence, mask = found.max(dim=0)
        return mask, confidence
