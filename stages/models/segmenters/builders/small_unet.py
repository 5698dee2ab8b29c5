"""A small U-Net whose encoder is the image trunk of the sandbox's CLIP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.config.config_section import Facts, Section
from stages.models.embedded.models import CLIP, SandboxName
from stages.models.segmenters.builders.base import Architecture, ModelBuilder

if TYPE_CHECKING:
    from pipeline.config.vocabulary import Vocabulary
    from stages.models.segmenters.networks.base import SegmentationNetwork


class SmallUNetConfig(Section):
    """Keys of the model `small_unet`."""

    encoder_weights: SandboxName | None = "sandbox"
    """Pretrained weights of the encoder: of the sandbox's CLIP, or null = random."""


class SmallUNetModel(ModelBuilder):
    """Builds `networks.small_unet.SmallUNet`."""

    Config = SmallUNetConfig
    version = 1
    config: SmallUNetConfig

    def weights_facts(self) -> Facts:
        """Name and checksum of the CLIP's file.

        Raises:
            WeightsError: The file is missing.
        """
        if self.config.encoder_weights is None:
            return {"weights": None}
        return {"weights": CLIP.facts()["weights"]}

    def build(
        self, vocabulary: Vocabulary, *, architecture: Architecture | None = None
    ) -> SegmentationNetwork:
        """See `ModelBuilder.build`."""
        import timm
        from safetensors import SafetensorError
        from safetensors.torch import load_file
        from timm.models import ByobNet

        from stages.models.embedded import trunk
        from stages.models.finite import finite_weights
        from stages.models.segmenters.networks.small_unet import SmallUNet, load_trunk

        trunk.register()
        encoder = timm.create_model(trunk.NAME, num_classes=0)
        assert isinstance(encoder, ByobNet)
        if architecture is None and self.config.encoder_weights is not None:
            CLIP.check()
            try:
                load_trunk(encoder, finite_weights(load_file(CLIP.weights), str(CLIP.weights)))
            except (SafetensorError, RuntimeError) as error:
                what = "these are not the weights of the sandbox's CLIP"
                raise CLIP.error(CLIP.weights, what) from error
        return SmallUNet(vocabulary.num_classes, encoder)
