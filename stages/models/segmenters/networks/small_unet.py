"""A small U-Net (arXiv 1505.04597) on a pretrained convolutional trunk, quick even on a CPU."""

from collections.abc import Mapping, Sequence

import torch
from timm.models import ByobNet
from torch import Tensor, nn
from torch.nn.functional import interpolate

from stages.models.segmenters.networks.base import SegmentationNetwork

WIDTHS = (32, 64, 96)
"""Channels of the decoder at the trunk's levels, from the finest to the deepest."""


class SmallUNet(SegmentationNetwork):
    """A trunk with maps at strides 2, 4 and 8, and 0.3 M parameters that decode them.

    The decoder has BatchNorm, as the trunk has: with GroupNorm, whose statistics are those of the
    one image, 100 steps on 16 labeled scenes of mostly background learned only background.

    Args:
        num_classes: Number of classes C.
        trunk: A timm network of three feature levels; becomes the encoder.
    """

    encoder: ByobNet

    def __init__(self, num_classes: int, trunk: ByobNet) -> None:
        super().__init__()
        self.encoder = trunk
        channels = [level["num_chs"] for level in trunk.feature_info]
        fine, middle, deep = WIDTHS
        self.deepest = _block(channels[2], deep)
        self.merges = nn.ModuleList(
            [_block(deep + channels[1], middle), _block(middle + channels[0], fine)]
        )
        self.classifier = nn.Conv2d(fine, num_classes, kernel_size=1)

    def encode(self, images: Tensor) -> list[Tensor]:
        """Features at strides 2, 4 and 8."""
        features = self.encoder.forward_intermediates(images, intermediates_only=True)
        assert isinstance(features, list)
        return features

    def fuse(self, features: list[Tensor]) -> Tensor:
        """Maps at stride 2."""
        *finer, deepest = features
        maps: Tensor = self.deepest(deepest)
        for merge, skip in zip(self.merges, reversed(finer), strict=True):
            maps = merge(torch.cat([_resized(maps, skip.shape[-2:]), skip], dim=1))
        return maps

    def classify(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits at stride 2, resized to the images' size."""
        return _resized(self.classifier(maps), size)


def load_trunk(trunk: nn.Module, clip: Mapping[str, Tensor]) -> None:
    """Copies the image tower's trunk of a CLIP model into a trunk of the same shape.

    Args:
        trunk: The trunk to fill.
        clip: The CLIP model's tensors by name, of any float type; those of the trunk start with
            ``visual.trunk.``.

    Raises:
        RuntimeError: The names or shapes are not the trunk's.
    """
    prefix = "visual.trunk."
    trunk.load_state_dict(
        {name.removeprefix(prefix): t for name, t in clip.items() if name.startswith(prefix)}
    )


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def _resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    return interpolate(maps, size, mode="bilinear", align_corners=False)
