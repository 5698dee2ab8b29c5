"""DPT on a pretrained ViT, the network of UniMatch V2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.config.config_section import Section
from pipeline.errors import ConfigError
from pipeline.files.config_paths import MaybePath
from stages.models.segmenters.builders._encoder import WHERE, EncoderBuilder
from stages.models.segmenters.builders.base import Architecture

if TYPE_CHECKING:
    from pipeline.config.vocabulary import Vocabulary
    from stages.models.segmenters.networks.base import SegmentationNetwork


class DPTConfig(Section):
    """Keys of the model `dpt`."""

    encoder: str = "vit_base_patch14_dinov2.lvd142m"
    """A plain ViT of timm with the tag of its weights: of DINOv2 vit_small_, vit_base_, vit_large_
    or vit_giant_patch14_dinov2.lvd142m; of DINOv3 such as vit_base_patch16_dinov3.lvd1689m."""
    encoder_weights: MaybePath | None = "pretrained"
    """Pretrained weights: those of the tag, downloaded on first use; a file, as timm or as its
    authors publish it; null = random."""


class DPTModel(EncoderBuilder):
    """Builds `networks.dpt.DPT`."""

    Config = DPTConfig
    version = 1
    config: DPTConfig

    def build(
        self, vocabulary: Vocabulary, *, architecture: Architecture | None = None
    ) -> SegmentationNetwork:
        """See `ModelBuilder.build`."""
        from stages.models.segmenters.encoders import timm_encoder
        from stages.models.segmenters.networks.dpt import DPT

        name = self.config.encoder
        weights = self.config.encoder_weights if architecture is None else None
        try:
            encoder = timm_encoder(name, weights, WHERE, dynamic_img_size=True)
        except TypeError as error:  # other architectures have no such option
            raise _no_vit(name) from error
        if not all(hasattr(encoder, part) for part in ("blocks", "patch_embed", "norm_pre")):
            raise _no_vit(name)
        network = DPT(vocabulary.num_classes, encoder)
        network.normalization = self.normalization(architecture)
        return network


def _no_vit(name: str) -> ConfigError:
    fix = "use one such as vit_base_patch14_dinov2.lvd142m"
    return ConfigError(f"{name} is no plain ViT", where="model.encoder", fix=fix)
