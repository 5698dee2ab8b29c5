"""What every network is: an encoder whose features a decoder turns into logits."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.functional import dropout2d
from torch.nn.modules.batchnorm import _BatchNorm


class SegmentationNetwork(nn.Module, ABC):
    """A segmentation network cut where UniMatch perturbs features.

    Attributes:
        encoder: The part with pretrained weights; it has its own learning rate.
    """

    encoder: nn.Module
    _is_encoder_frozen = False
    _compiled_parts = ("encode", "decode")

    @abstractmethod
    def encode(self, images: Tensor) -> list[Tensor]:
        """The features that the decoder reads, and no others.

        Args:
            images: (N, 3, H, W) float, normalized; any height and width.

        Returns:
            Features (N, F, h, w), from the finest to the deepest.
        """

    @abstractmethod
    def decode(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Logits (N, C, H, W) from the features of `encode`.

        Args:
            features: As from `encode`.
            size: Height and width (H, W) of the images.
        """

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C, H, W) of normalized images (N, 3, H, W)."""
        return self.decode(self.encode(images), _size(images))

    def forward_perturbed(self, images: Tensor, *, apart: bool = False) -> tuple[Tensor, Tensor]:
        """Logits from clean and from perturbed features, with one pass through the encoder.

        Half of the channels, drawn anew for each image and feature level, are set to zero, in eval
        mode too. The decoder sees both copies in one batch, so that its BatchNorm, if it has any,
        takes its statistics over both (UniMatch, arXiv 2208.09910, section 3.2).

        Args:
            images: (N, 3, H, W) float, normalized.
            apart: Whether the decoder sees the copies one after the other instead, and its running
                statistics take in the clean one alone.

        Returns:
            Clean and perturbed logits, (N, C, H, W) each.
        """
        features, size = self.encode(images), _size(images)
        dropped = [dropout2d(f, 0.5, training=True) for f in features]
        if apart:
            clean = self.decode(features, size)
            with running_statistics(self, moving=False):
                return clean, self.decode(dropped, size)
        both = [torch.cat(copies) for copies in zip(features, dropped, strict=True)]
        clean, perturbed = self.decode(both, size).chunk(2)
        return clean, perturbed

    def freeze_encoder(self) -> None:
        """Keeps the encoder as it is: no gradients, and eval mode even while the rest trains."""
        self.encoder.requires_grad_(False).eval()
        self._is_encoder_frozen = True

    def train(self, mode: bool = True) -> Self:
        """Train or eval mode; a frozen encoder stays in eval mode."""
        super().train(mode)
        if self._is_encoder_frozen:
            self.encoder.eval()
        return self

    def compile(self, *args: Any, **keywords: Any) -> None:
        """Compiles the parts that steps are made of, in place; see `torch.compile`.

        Names of parameters stay, and copies are not compiled.
        """
        for name in self._compiled_parts:
            self.__dict__[name] = torch.compile(getattr(self, name), *args, **keywords)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        return {key: value for key, value in state.items() if key not in self._compiled_parts}

    def encoder_parameters(self) -> Iterator[Parameter]:
        """Parameters that start from pretrained weights."""
        return self.encoder.parameters()

    def decoder_parameters(self) -> Iterator[Parameter]:
        """All other parameters."""
        encoder = set(self.encoder.parameters())
        return (parameter for parameter in self.parameters() if parameter not in encoder)


@contextmanager
def running_statistics(network: nn.Module, *, moving: bool) -> Iterator[None]:
    """Whether the running statistics of BatchNorm take in what passes while this is entered.

    They are what images are normalized by in eval mode; in train mode each batch is by its own.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms if not moving else ():
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def _size(images: Tensor) -> tuple[int, int]:
    height, width = images.shape[-2:]
    return height, width
