"""A small U-Net whose encoder is the image trunk of the sandbox's CLIP."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import stages.sandbox
from pipeline.config.config_section import Facts, Section
from pipeline.errors import WeightsError
from pipeline.files.checksum import checksum
from stages.models.segmenters.builders.base import Architecture, ModelBuilder

if TYPE_CHECKING:
    from pipeline.config.vocabulary import Vocabulary
    from stages.models.segmenters.networks.base import SegmentationNetwork

SANDBOX_WEIGHTS = Path(stages.sandbox.__path__[0]) / "clip" / "open_clip_model.safetensors"
"""The tiny CLIP that comes with the sandbox."""


class SmallUNetConfig(Section):
    """Keys of the model `small_unet`."""

    encoder_weights: Literal["sandbox"] | None = "sandbox"
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
        try:
            return {"weights": checksum(SANDBOX_WEIGHTS)}
        except FileNotFoundError as error:
            raise _weights_error("the weights of the sandbox's CLIP are missing") from error

    def build(
        self, vocabulary: Vocabulary, *, architecture: Architecture | None = None
    ) -> SegmentationNetwork:
        """See `ModelBuilder.build`."""
        import timm
        from safetensors import SafetensorError
        from safetensors.torch import load_file
        from timm.models import ByobNet

        from stages.models.segmenters.networks.small_unet import SmallUNet, load_trunk
        from stages.sandbox import trunk

        trunk.register()
        encoder = timm.create_model(trunk.NAME, num_classes=0)
        assert isinstance(encoder, ByobNet)
        if architecture is None and self.config.encoder_weights is not None:
            try:
                load_trunk(encoder, load_file(SANDBOX_WEIGHTS))
            except FileNotFoundError as error:
                raise _weights_error("the weights of the sandbox's CLIP are missing") from error
            except (SafetensorError, RuntimeError) as error:
                raise _weights_error("these are not the weights of the sandbox's CLIP") from error
        return SmallUNet(vocabulary.num_classes, encoder)


def _weights_error(what: str) -> WeightsError:
    return WeightsError(
        what,
        where=str(SANDBOX_WEIGHTS),
        fix="restore the file, or make it with `python -m stages.sandbox.train_clip`",
    )
