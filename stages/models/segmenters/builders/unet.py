"""The U-Net of segmentation_models_pytorch, for medical images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.config.config_section import Section
from pipeline.files.config_paths import MaybePath
from stages.models.segmenters.builders._encoder import WHERE, EncoderBuilder
from stages.models.segmenters.builders.base import Architecture

if TYPE_CHECKING:
    from pipeline.config.vocabulary import Vocabulary
    from stages.models.segmenters.networks.base import SegmentationNetwork


class UNetConfig(Section):
    """Keys of the model `unet`."""

    encoder: str = "resnet34"
    """An encoder of segmentation_models_pytorch, or one of timm after tu-."""
    encoder_weights: MaybePath | None = "imagenet"
    """Pretrained weights: imagenet, downloaded on first use; a file; null = random."""


class UNetModel(EncoderBuilder):
    """Builds `networks.unet.UNet`."""

    Config = UNetConfig
    version = 1
    config: UNetConfig

    def build(
        self, vocabulary: Vocabulary, *, architecture: Architecture | None = None
    ) -> SegmentationNetwork:
        """See `ModelBuilder.build`."""
        from stages.models.segmenters.encoders import convolutional_encoder
        from stages.models.segmenters.networks.unet import UNet

        weights = self.config.encoder_weights if architecture is None else None
        encoder = convolutional_encoder(self.config.encoder, weights, WHERE)
        network = UNet(vocabulary.num_classes, encoder)
        network.normalization = self.normalization(architecture)
        return network
