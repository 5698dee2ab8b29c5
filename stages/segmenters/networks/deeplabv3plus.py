"""DeepLabV3+ (arXiv 1802.02611) with UniMatch's settings, from segmentation_models_pytorch."""

from collections.abc import Sequence

import torch
from segmentation_models_pytorch import DeepLabV3Plus as Parts
from torch import Tensor
from torch.nn.functional import interpolate

from stages.segmenters.networks.base import SegmentationNetwork

STRIDE_4, DEEPEST = 2, -1
"""The levels of the encoder that the decoder reads."""


class DeepLabV3Plus(SegmentationNetwork):
    """Dilated encoder (output stride 16), atrous spatial pyramid pooling and one fine feature.

    The library's forward wants heights and widths that are multiples of 16. Its parts are called
    here one by one, resizing to the sizes there are: published crops are 321, 513 or 801.

    Args:
        num_classes: Number of classes C.
        encoder: Name of an encoder of the library that can be dilated, such as resnet101.
        encoder_weights: Tag of pretrained weights, downloaded on first use; None = random.

    Raises:
        KeyError: The library has no such encoder, or no such weights for it.
        ValueError: The encoder cannot be dilated.
        OSError: The weights cannot be downloaded.
    """

    def __init__(self, num_classes: int, encoder: str, encoder_weights: str | None) -> None:
        super().__init__()
        parts = Parts(
            encoder,
            encoder_weights=encoder_weights,
            encoder_output_stride=16,
            decoder_atrous_rates=(6, 12, 18),
            decoder_aspp_separable=False,
            decoder_aspp_dropout=0.0,  # all dropout is UniMatch's own, on the features
            classes=num_classes,
        )
        self.encoder = parts.encoder
        self.decoder = parts.decoder
        self.classifier = parts.segmentation_head[0]  # what follows it would upsample by 4

    def encode(self, images: Tensor) -> list[Tensor]:
        """Features at strides 4 and 16."""
        features = self.encoder(images)
        return [features[STRIDE_4], features[DEEPEST]]

    def fuse(self, features: list[Tensor]) -> Tensor:
        """Maps at stride 4."""
        fine, deep = features
        context = _resized(self.decoder.aspp(deep), fine.shape[-2:])
        fused: Tensor = self.decoder.block2(torch.cat([context, self.decoder.block1(fine)], dim=1))
        return fused

    def classify(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits at stride 4, resized to the images' size."""
        return _resized(self.classifier(maps), size)


def _resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    return interpolate(maps, size, mode="bilinear", align_corners=True)
