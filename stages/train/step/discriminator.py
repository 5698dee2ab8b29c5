"""The feature discriminator, SUFD: are these features of labeled crops? (arXiv 2604.07122).

The paper's architecture and weights were not readable: this is our completion.
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
"""Channels after the first three of four convolutions."""
BETAS = (0.9, 0.99)
"""Of the discriminator's Adam."""


class FeatureDiscriminator(nn.Module):
    """Four 4x4 convolutions of stride 2; padded so that maps of any size get a score.

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
        """Scores (N, 1, h, w), positive for labeled, of maps (N, F, H, W)."""
        scores: Tensor = self.layers(maps.float())
        return scores


@dataclass(frozen=True)
class Features:
    """The decoder's maps before the classifier, of one pass.

    Attributes:
        labeled: (B, F, h, w) of labeled crops.
        others: (N, F, h, w) of weak views of all other crops.
    """

    labeled: Tensor
    others: Tensor

    def detached(self) -> Features:
        """The same numbers, without the graph that they came of."""
        return Features(self.labeled.detach(), self.others.detach())


class Discriminator:
    """The discriminator with its optimizer, and both sides of its game.

    Args:
        network: The discriminator, on its device.
        weight: Of the segmenter's term in its total loss.
        learning_rate: Of the discriminator's Adam.
    """

    def __init__(self, network: FeatureDiscriminator, weight: float, learning_rate: float) -> None:
        self.network = network
        self.weight = weight
        self.optimizer = Adam(network.parameters(), learning_rate, betas=BETAS)

    def adversarial_loss(self, features: Features) -> Tensor:
        """What the segmenter loses where others than labeled features are told from these.

        No gradient reaches the discriminator, and none the labeled features.
        """
        with _frozen(self.network):
            return _against(self.network(features.others), 1.0)

    def own_loss(self, features: Features) -> Tensor:
        """What the discriminator loses where it is wrong; no gradient reaches the segmenter."""
        seen = features.detached()
        labeled = _against(self.network(seen.labeled), 1.0)
        return (labeled + _against(self.network(seen.others), 0.0)) / 2

    def update(self, seen: Sequence[Features]) -> Tensor:
        """Takes a step of its own, after the segmenter's.

        Args:
            seen: The features of the step's micro-batches, which weigh the same.

        Returns:
            Its loss before the step, a scalar without gradient.
        """
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        for features in seen:  # one graph at a time
            loss = self.own_loss(features) / len(seen)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        for parameter in self.network.parameters():
            if parameter.grad is not None:
                parameter.grad = global_mean(parameter.grad)
        self.optimizer.step()
        return torch.stack(losses).sum()

    def state_dict(self) -> dict[str, Any]:
        """The state of network and optimizer, for `load_state_dict`."""
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up what `state_dict` gave."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])


def _against(scores: Tensor, answer: float) -> Tensor:
    return binary_cross_entropy_with_logits(scores, torch.full_like(scores, answer))


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
