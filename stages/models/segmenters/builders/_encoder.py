"""What builders of networks on a pretrained encoder share."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue, TypeAdapter

from pipeline.config.config_section import Facts
from stages.models.segmenters.builders.base import Architecture, ModelBuilder
from stages.models.segmenters.pretrained import weights_facts

if TYPE_CHECKING:
    from stages.models.segmenters.normalization import Normalization

WHERE = "model.encoder_weights"
"""The key that names the encoder's weights."""
_KEY = "normalization"
_OF_IMAGENET = re.compile(
    r"resnet(18|34|50|101|152)|tu-resnet(18|34|50|101|152)s?\.(gluon|tv)_in1k|"
    r"vit_\w+_dinov2\.lvd142m|vit_\w+_dinov3\.lvd1689m"
)
"""Encoders that are normalized by ImageNet's statistics, for certain; others were too, by mistake,
before their own were used, so trainings of these are stale once."""


class EncoderBuilder(ModelBuilder):
    """Builds a network on an encoder of the config's keys `encoder` and `encoder_weights`."""

    config: Any

    def weights_facts(self) -> Facts:
        """See `ModelBuilder.weights_facts`."""
        facts = weights_facts(self.config.encoder_weights, WHERE)
        is_known = _OF_IMAGENET.fullmatch(self.config.encoder) is not None
        if self.config.encoder_weights is not None and not is_known:
            facts[_KEY] = "of the encoder"
        return facts

    def architecture(self) -> dict[str, JsonValue]:
        """See `ModelBuilder.architecture`: the normalization, where it is not ImageNet's."""
        from stages.models.segmenters.encoders import pretrained_normalization
        from stages.models.segmenters.normalization import IMAGENET

        found = pretrained_normalization(self.config.encoder, self.config.encoder_weights)
        if found == IMAGENET:
            return {}
        return {_KEY: {"mean": list(found.mean), "std": list(found.std)}}

    def normalization(self, architecture: Architecture | None) -> Normalization:
        """What the encoder's images are normalized by; see `build` for the argument."""
        from stages.models.segmenters.normalization import IMAGENET, Normalization

        found = (self.architecture() if architecture is None else architecture).get(_KEY)
        return IMAGENET if found is None else TypeAdapter(Normalization).validate_python(found)
