"""DeepLabV3+, the network of FixMatch, UniMatch, PrevMatch and SemiOVS."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal

from pipeline.errors import ConfigError, WeightsError
from pipeline.section import Facts, Section
from stages.segmenters.models.base import Model

if TYPE_CHECKING:
    from stages.segmenters.networks.base import SegmentationNetwork


class DeepLabV3PlusConfig(Section):
    """Keys of the model `deeplabv3plus`."""

    encoder: str = "resnet101"
    """An encoder of segmentation_models_pytorch."""
    encoder_weights: Literal["imagenet"] | None = "imagenet"
    """Pretrained weights of the encoder, downloaded on first use; null = random."""


class DeepLabV3PlusModel(Model):
    """Builds `networks.deeplabv3plus.DeepLabV3Plus`."""

    Config = DeepLabV3PlusConfig
    version = 1
    config: DeepLabV3PlusConfig

    def weights_facts(self) -> Facts:
        """The tag; its revision is the field library's, whose version is stored with every run."""
        return {"weights": self.config.encoder_weights}

    def build(self, num_classes: int, *, pretrained: bool = True) -> SegmentationNetwork:
        """See `Model.build`."""
        from segmentation_models_pytorch.encoders import encoders

        from stages.segmenters.networks.deeplabv3plus import DeepLabV3Plus

        name = self.config.encoder
        weights = self.config.encoder_weights if pretrained else None
        if name not in encoders:
            raise ConfigError(
                f"segmentation_models_pytorch has no encoder {name!r}",
                where="model.encoder",
                fix=f"use one it has, such as {', '.join(_similar(name, list(encoders)))}",
            )
        published = encoders[name]["pretrained_settings"]
        if weights is not None and weights not in published:
            raise ConfigError(
                f"the encoder {name!r} has no weights {weights!r}",
                where="model.encoder_weights",
                fix="use null or another encoder",
            )
        try:
            return DeepLabV3Plus(num_classes, name, weights)
        except ValueError as error:
            raise ConfigError(
                f"the encoder {name!r} cannot be dilated: {error}",
                where="model.encoder",
                fix="use a residual network, such as resnet101",
            ) from error
        except OSError as error:
            source = published[weights]
            raise WeightsError(
                f"the {weights} weights of {name} cannot be downloaded",
                where="model.encoder_weights",
                fix=f"run `hf download {source['repo_id']} --revision {source['revision']}` where "
                "there is a network and copy its cache here, or set encoder_weights: null",
            ) from error


def _similar(name: str, known: list[str]) -> list[str]:
    return get_close_matches(name, known) or ["resnet50", "resnet101"]
