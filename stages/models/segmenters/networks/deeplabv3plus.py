"""DeepLabV3+ (arXiv 1802.02611) with UniMatch's settings (arXiv 2208.09910)."""

from collections.abc import Sequence

import torch
from segmentation_models_pytorch.decoders.deeplabv3.decoder import ASPP
from torch import Tensor, nn
from torch.nn.functional import interpolate

from stages.models.segmenters.networks.base import SegmentationNetwork

STRIDE_4, DEEPEST = 2, -1
"""The levels of the encoder that the decoder reads."""

_WIDTH, _FINE_WIDTH = 256, 48


class DeepLabV3Plus(SegmentationNetwork):
    """Dilated encoder (output stride 16), atrous spatial pyramid pooling and one fine feature.

    The library's own decoder convolves depthwise and once less; its pyramid pooling is the
    published one. All dropout is UniMatch's own, on the features.

    Args:
        num_classes: Number of classes C.
        encoder: One of segmentation_models_pytorch, at output stride 16: images (N, 3, H, W) to a
            list of features of `out_channels` channels.
    """

    def __init__(self, num_classes: int, encoder: nn.Module) -> None:
        super().__init__()
        channels = encoder.out_channels
        assert isinstance(channels, Sequence)
        self.encoder = encoder
        self.pyramid = ASPP(channels[DEEPEST], _WIDTH, (6, 12, 18), separable=False, dropout=0.0)
        self.reduce = _block(channels[STRIDE_4], _FINE_WIDTH, kernel_size=1)
        self.merge = nn.Sequential(
            _block(_WIDTH + _FINE_WIDTH, _WIDTH, kernel_size=3),
            _block(_WIDTH, _WIDTH, kernel_size=3),
        )
        self.classifier = nn.Conv2d(_WIDTH, num_classes, kernel_size=1)

    def encode(self, images: Tensor) -> list[Tensor]:
        """Features at strides 4 and 16."""
        features = self.encoder(self.as_pretrained(images))
        return [features[STRIDE_4], features[DEEPEST]]

    def fuse(self, features: list[Tensor]) -> Tensor:
        """Maps at stride 4."""
        fine, deep = features
        context = _resized(self.pyramid(deep), fine.shape[-2:])
        fused: Tensor = self.merge(torch.cat([self.reduce(fine), context], dim=1))
        return fused

    def classify(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits at stride 4, resized to the images' size."""
        return _resized(self.classifier(maps), size)


def _block(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    padding = kernel_size // 2
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def _resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    return interpolate(maps, size, mode="bilinear", align_corners=True)
