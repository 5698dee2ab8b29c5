"""Base class of all networks: an encoder, and a decoder from its features to logits."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Self, TypedDict, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.modules.batchnorm import _BatchNorm

from stages.models.segmenters.normalization import IMAGENET, Normalization, renormalized

M = TypeVar("M", bound=nn.Module)


class ParameterGroup(TypedDict):
    """Parameters that an optimizer moves alike.

    Attributes:
        params: The parameters.
        multiplier: Of the base learning rate.
        weight_decay: Theirs.
    """

    params: list[Parameter]
    multiplier: float
    weight_decay: float


class SegmentationNetwork(nn.Module, ABC):
    """A segmentation network cut where features are perturbed, and once more before the classifier.

    It takes images normalized by ImageNet's mean and deviation, as every image here is.

    Attributes:
        encoder: The part with pretrained weights; it has its own learning rate.
        normalization: What the images of the encoder's pretraining were normalized by.
    """

    encoder: nn.Module
    normalization: Normalization = IMAGENET
    _is_encoder_frozen = False
    _compiled_parts = ("encode", "fuse", "classify")

    @abstractmethod
    def encode(self, images: Tensor) -> list[Tensor]:
        """The features that the decoder reads, and no others.

        Args:
            images: (N, 3, H, W) float, normalized; any height and width.

        Returns:
            Features (N, F, h, w), from the finest to the deepest.
        """

    @abstractmethod
    def fuse(self, features: list[Tensor]) -> Tensor:
        """The decoder's maps (N, F, h, w) before the classifier.

        Args:
            features: As from `encode`.
        """

    @abstractmethod
    def classify(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits (N, C, H, W) from the decoder's maps.

        Args:
            maps: As from `fuse`.
            size: Height and width (H, W) of the images.
        """

    def as_pretrained(self, images: Tensor) -> Tensor:
        """Normalized images (N, 3, H, W), normalized as in the encoder's pretraining instead."""
        return renormalized(images, self.normalization)

    def decode(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Logits (N, C, H, W) from the features of `encode`.

        Args:
            features: As from `encode`.
            size: Height and width (H, W) of the images.
        """
        return self.classify(self.fuse(features), size)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C, H, W) of normalized images (N, 3, H, W)."""
        return self.decode(self.encode(images), _size(images))

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
        """Compiles the forward parts in place; see `torch.compile`.

        Names of parameters stay, and copies are not compiled.
        """
        for name in self._compiled_parts:
            self.__dict__[name] = torch.compile(getattr(self, name), *args, **keywords)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        return {key: value for key, value in state.items() if key not in self._compiled_parts}

    def decoder_parameters(self) -> Iterator[Parameter]:
        """All other parameters."""
        encoder = set(self.encoder.parameters())
        return (parameter for parameter in self.parameters() if parameter not in encoder)

    def encoder_blocks(self) -> Sequence[nn.Module]:
        """The encoder's blocks from the first to the last, for layer decay; none if it has none."""
        return ()

    def parameter_groups(
        self,
        *,
        encoder_multiplier: float = 1.0,
        decoder_multiplier: float = 1.0,
        layer_decay: float = 1.0,
        weight_decay: float = 0.0,
        decay_encoder_norms: bool = True,
    ) -> list[ParameterGroup]:
        """The optimizer's parameter groups, the encoder's first; without frozen parameters.

        Args:
            encoder_multiplier: The encoder's rate over the base rate.
            decoder_multiplier: The rate of all other parameters over the base rate.
            layer_decay: A block's rate over that of the block after it (BEiT, arXiv 2106.08254).
                Parameters before the blocks count as one block; those after them have
                the encoder's full rate.
            weight_decay: Weight decay of the parameters that have one.
            decay_encoder_norms: Whether the encoder's normalization layers have weight decay.
        """
        norms = set() if decay_encoder_norms else set(_of_norms(self.encoder))
        groups: dict[tuple[float, float], list[Parameter]] = {}
        layers = self._encoder_layers()
        for depth, layer in enumerate(layers):
            multiplier = encoder_multiplier * layer_decay ** (len(layers) - 1 - depth)
            for parameter in layer:
                if parameter.requires_grad:
                    key = multiplier, 0.0 if parameter in norms else weight_decay
                    groups.setdefault(key, []).append(parameter)
        decoder = [p for p in self.decoder_parameters() if p.requires_grad]
        every = [*groups.items(), ((decoder_multiplier, weight_decay), decoder)]
        return [
            {"params": params, "multiplier": multiplier, "weight_decay": decay}
            for (multiplier, decay), params in every
            if params
        ]

    def _encoder_layers(self) -> list[list[Parameter]]:
        """The encoder's parameters: before its blocks, block by block, after them."""
        blocks = [list(block.parameters()) for block in self.encoder_blocks()]
        of_blocks = {parameter for block in blocks for parameter in block}
        before: list[Parameter] = []
        after: list[Parameter] = []
        is_before = bool(blocks)
        for parameter in self.encoder.parameters():
            is_before = is_before and parameter not in of_blocks
            if parameter not in of_blocks:
                (before if is_before else after).append(parameter)
        return [before, *blocks, after]


def frozen_copy(network: M) -> M:
    """A copy in eval mode, without gradients, that shares no tensor with the network."""
    return deepcopy(network).eval().requires_grad_(False)


@contextmanager
def running_statistics(network: nn.Module, *, moving: bool) -> Iterator[None]:
    """Sets whether forward passes inside this context move BatchNorm's running statistics.

    Eval mode normalizes by them; train mode normalizes each batch by its own statistics.
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


def _of_norms(module: nn.Module) -> Iterable[Parameter]:
    """The parameters of normalization layers."""
    kinds = (_BatchNorm, nn.GroupNorm, nn.LayerNorm)
    for part in module.modules():
        if isinstance(part, kinds):
            yield from part.parameters(recurse=False)


def _size(images: Tensor) -> tuple[int, int]:
    height, width = images.shape[-2:]
    return height, width
