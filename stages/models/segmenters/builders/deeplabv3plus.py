"""DeepLabV3+, the network of FixMatch, UniMatch, PrevMatch and SemiOVS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from pipeline.config.config_section import Section
from pipeline.files.config_paths import MaybePath
from stages.models.segmenters.builders._encoder import WHERE, EncoderBuilder
from stages.models.segmenters.builders.base import Architecture

if TYPE_CHECKING:
    from pipeline.config.vocabulary import Vocabulary
    from stages.models.segmenters.networks.base import SegmentationNetwork

_OUTPUT_STRIDE = 16


class DeepLabV3PlusConfig(Section):
    """Keys of the model `deeplabv3plus`."""

    encoder: str = "tu-resnet101s.gluon_in1k"
    """An encoder of segmentation_models_pytorch, or one of timm after tu-. UniMatch's ResNets have
    a stem of three convolutions: tu-resnet50s.gluon_in1k, tu-resnet101s.gluon_in1k; its Xception is
    tu-xception65."""
    encoder_weights: MaybePath | None = "imagenet"
    """Pretrained weights: imagenet, downloaded on first use; a file; null = random."""
    batchnorm_momentum: Annotated[float, Field(gt=0, le=1)] | None = None
    """BatchNorm momentum of the encoder; 0.0003 in UniMatch's Xception. Default: the library's."""


class DeepLabV3PlusModel(EncoderBuilder):
    """Builds `networks.deeplabv3plus.DeepLabV3Plus`."""

    Config = DeepLabV3PlusConfig
    version = 2
    config: DeepLabV3PlusConfig

    def build(
        self, vocabulary: Vocabulary, *, architecture: Architecture | None = None
    ) -> SegmentationNetwork:
        """See `ModelBuilder.build`."""
        from torch.nn.modules.batchnorm import _BatchNorm

        from stages.models.segmenters.encoders import convolutional_encoder
        from stages.models.segmenters.networks.deeplabv3plus import DeepLabV3Plus

        encoder = convolutional_encoder(
            self.config.encoder,
            self.config.encoder_weights if architecture is None else None,
            WHERE,
            output_stride=_OUTPUT_STRIDE,
        )
        if self.config.batchnorm_momentum is not None:
            for norm in (m for m in encoder.modules() if isinstance(m, _BatchNorm)):
                norm.momentum = self.config.batchnorm_momentum
        network = DeepLabV3Plus(vocabulary.num_classes, encoder)
        network.normalization = self.normalization(architecture)
        return network
