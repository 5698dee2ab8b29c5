"""The protocol of prediction: image size, sliding windows, flips and scales."""

from __future__ import annotations

from typing import Annotated, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from pipeline.config.config import Config
from pipeline.config.config_section import RunOnly, Section
from pipeline.config.plain_words import Unit
from pipeline.errors import ConfigError

MAX_ASPECT = 4
"""Longest side in short sides, of what is brought to a short side: mmsegmentation's 2048 to 512."""

Scale = Annotated[float, Field(gt=0, le=8)]


class SlidingWindow(Section):
    """Windows that cover an image, and what becomes of pixels that several of them see."""

    side_px: Annotated[int, Field(ge=16, le=8192)]
    """Height and width of a window."""
    stride_px: Annotated[int, Field(ge=1)]
    """Distance between windows, at most `side_px`."""
    mode: Literal["clip", "snap"] = "snap"
    """At the border a window is cut off (`clip`, as UniMatch does on Cityscapes), or moved back
    inside (`snap`, as UniMatch V2 and SemiVL do)."""
    average: Literal["probabilities", "logits"] = "probabilities"
    """The averaged quantity: probabilities (UniMatch, UniMatch V2) or logits (SemiVL)."""

    @model_validator(mode="after")
    def _leaves_no_gap(self) -> SlidingWindow:
        if self.stride_px > self.side_px:
            raise ValueError("stride_px is larger than side_px, and would leave gaps")
        return self


class Protocol(Section):
    """Keys of the section `evaluate` that say how images are predicted.

    The defaults are the published protocol of VOC, COCO and ADE20K: the whole image in one pass at
    its own size, not flipped.
    """

    sliding_window: SlidingWindow | None = None
    """Windows instead of the whole image at once."""
    short_side_px: Annotated[int, Field(ge=16, le=8192)] | None = None
    """Images are brought to this short side before (512 in SemiVL), the prediction is brought back;
    None: they keep their size."""
    flip: bool = False
    """Whether the mirrored image is predicted too; probabilities are averaged."""
    scales: Annotated[tuple[Scale, ...], Field(min_length=1)] = (1.0,)
    """Sizes to predict an image at, as multiples; probabilities are averaged."""
    batch_size: Annotated[int, Field(ge=1), RunOnly, Unit("windows")] = 4
    """Windows of an image that pass through the network at once."""

    @field_validator("scales")
    @classmethod
    def _differ(cls, scales: tuple[float, ...]) -> object:
        if len(set(scales)) < len(scales):
            raise ValueError("a scale is listed twice; remove one")
        return scales

    def sizes(self, height_px: int, width_px: int) -> list[tuple[int, int]]:
        """Heights and widths that an image is predicted at, one a scale, its shape kept.

        As mmsegmentation scales to (4 * short side, short side): the long side is bounded.
        """
        height, width = height_px, width_px
        if self.short_side_px is not None:
            short, long = sorted((height, width))
            resize = min(self.short_side_px / short, MAX_ASPECT * self.short_side_px / long)
            height, width = (max(1, int(side * resize + 0.5)) for side in (height, width))
        return [
            (max(1, round(height * scale)), max(1, round(width * scale))) for scale in self.scales
        ]

    def predicts_as(self, other: Protocol) -> bool:
        """Whether both give the same predictions."""
        return all(getattr(self, key) == getattr(other, key) for key in _PREDICTING)

    def spelled(self) -> str:
        """The keys that differ from their defaults, as they are written in a config."""
        plain = self.model_dump(mode="json", include=set(_PREDICTING), exclude_defaults=True)
        if not plain:
            return "whole images at their own size"
        return yaml.safe_dump(plain, default_flow_style=True, width=1000).strip()


_PREDICTING = ("sliding_window", "short_side_px", "flip", "scales")

WHOLE_IMAGE = Protocol()
"""One pass at the image's own size."""


class ProtocolChoice(Protocol):
    """A protocol by its keys, or by the paper of a preset."""

    protocol: Annotated[Literal["published"] | None, RunOnly] = None
    """published: each training is predicted as in the paper of its preset, on the dataset that it
    names; keys that are written here override that. Facts hold the keys, not this name."""

    def over(self, published: Protocol) -> Protocol:
        """The keys that are written, over a published protocol."""
        written = Protocol.model_fields.keys() & self.model_fields_set
        return published.model_copy(update={key: getattr(self, key) for key in written})


def protocol_of(config: Config, published: Protocol | None) -> Protocol:
    """The protocol of a training: by the section `evaluate`, or whole images without one.

    Args:
        config: The run.
        published: The protocol of the training's preset, see `VariantConfig.published_protocol`.

    Raises:
        ConfigError: The published protocol is asked for, but there is none.
    """
    section = config.section(ProtocolChoice)
    if section is None or section.protocol is None:
        return section or WHOLE_IMAGE
    if published is None:
        what = "a training has no preset whose protocol is known"
        fix = "write keys such as `sliding_window` instead, or set the `preset` and its `dataset`"
        raise ConfigError(what, where=config.where("evaluate", "protocol"), fix=fix)
    return section.over(published)
