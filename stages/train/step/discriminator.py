"""SUFD: a discriminator between features of labeled and of other crops (arXiv 2604.07122).

The paper does not give architecture and weights in readable form; they are our choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim import Adam

from stages.train.distributed import global_mean

WIDTHS = (64, 128, 256)
"""Output channels of the first three of four convolutions."""
BETAS = (0.9, 0.99)
"""Betas of the discriminator's Adam."""


class FeatureDiscriminator(nn.Module):
    """Four 4x4 convolutions with stride 2, padded so that maps of any size get a score.

    Args:
        channels: Channels F of the decoder's maps.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in WIDTHS:
            layers += [nn.Conv2d(channels, width, 4, stride=2, padding=2), nn.LeakyReLU(0.2)]
            channels = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, 4, stride=2, padding=2))

    def forward(self, maps: Tensor) -> Tensor:
        """Scores (N, 1, h, w) of maps (N, F, H, W); positive = labeled."""
        scores: Tensor = self.layers(maps.float())
        return scores


@dataclass(frozen=True)
class Features:
    """The decoder's maps before the classifier, from one forward pass.

    Attributes:
        labeled: (B, F, h, w) of labeled crops.
        others: (N, F, h, w) of weak views of all other crops.
    """

    labeled: Tensor
    others: Tensor

    def detached(self) -> Features:
        """The same features without their graph."""
        return Features(self.labeled.detach(), self.others.detach())


class Discriminator:
    """The discriminator network with its optimizer and both adversarial losses.

    Args:
        network: The discriminator network, on its device.
        weight: Weight of the adversarial loss in the segmenter's total.
        learning_rate: Learning rate of the discriminator's Adam.
    """

    def __init__(self, network: FeatureDiscriminator, weight: float, learning_rate: float) -> None:
        self.network = network
        self.weight = weight
        self.optimizer = Adam(network.parameters(), learning_rate, betas=BETAS)

    def adversarial_loss(self, features: Features) -> Tensor:
        """The segmenter's loss: small where other features look like labeled ones.

        Gradients flow only into the features of the other crops.
        """
        with _frozen(self.network):
            return _cross_entropy(self.network(features.others), 1.0)

    def discriminator_loss(self, features: Features) -> Tensor:
        """The discriminator's own loss; gradients do not flow into the segmenter."""
        seen = features.detached()
        labeled = _cross_entropy(self.network(seen.labeled), 1.0)
        return (labeled + _cross_entropy(self.network(seen.others), 0.0)) / 2

    def update(self, seen: Sequence[Features]) -> Tensor:
        """Takes an optimizer step of the discriminator, after the segmenter's.

        Args:
            seen: The features of the step's micro-batches, with equal weights.

        Returns:
            The loss before the step, a scalar without gradient.
        """
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        for features in seen:  # one graph in memory at a time
            loss = self.discriminator_loss(features) / len(seen)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        for parameter in self.network.parameters():
            if parameter.grad is not None:
                parameter.grad = global_mean(parameter.grad)
        self.optimizer.step()
        return torch.stack(losses).sum()

    def state_dict(self) -> dict[str, Any]:
        """The state of network and optimizer."""
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the state from `state_dict`."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])


def _cross_entropy(scores: Tensor, target: float) -> Tensor:
    return binary_cross_entropy_with_logits(scores, torch.full_like(scores, target))


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
