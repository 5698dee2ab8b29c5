"""Compares the image sizes of training crops with those of evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.config.config import Config
from stages.ingest.output import read_images
from stages.models.segmenters.protocol import MAX_ASPECT, WHOLE_IMAGE, Protocol
from stages.train.config import VariantConfig

_NEARLY = 1.1
"""Sizes that differ by a smaller factor count as equal."""

Size = tuple[int, int]
"""Height and width, px."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of images.

    Attributes:
        labeled: Sizes of the labeled images.
        val: Sizes of the val images.
        test: Sizes of the test images.
        evaluated: Whether the config has `evaluate`; without it only validation scores images.
    """

    labeled: Sequence[Size]
    val: Sequence[Size]
    test: Sequence[Size]
    evaluated: bool

    @classmethod
    def of(cls, config: Config) -> Sizes:
        """The sizes of a run, from its images manifest."""
        images = read_images(config.manifests, ["labeled", "val", "test"], more=("height", "width"))
        found: dict[str, list[Size]] = {"labeled": [], "val": [], "test": []}
        for row in images.select(["role", "height", "width"]).to_pylist():
            found[row["role"]].append((row["height"], row["width"]))
        return cls(**found, evaluated="evaluate" in config.sections)

    def mismatch(self, variant: VariantConfig, protocol: Protocol = WHOLE_IMAGE) -> str | None:
        """A warning if most images are scored at sizes that no crop of a variant has, else None.

        Sizes are long sides, as in the scaling of crops, of images at all scales of the protocol.
        """
        images = [*self.val, *self.test] if self.evaluated else []
        if not self.evaluated and variant.validate_every is not None:
            images = [*self.val]
        scored = [max(size) for own in images for size in protocol.sizes(*own)]
        if not scored or not self.labeled:
            return None
        longest = [_long_side(size, variant.short_side_px) for size in self.labeled]
        low, high = min(longest) * variant.scale[0], max(longest) * variant.scale[1]
        seen = [low <= side * _NEARLY and side <= high * _NEARLY for side in scored]
        if 2 * sum(seen) >= len(seen):
            return None
        return (
            f"crops show images with long sides of {_span(low, high)} px, but most are scored at "
            f"{_span(min(scored), max(scored))} px"
        )


def _long_side(size: Size, short_side_px: int | None) -> float:
    """The long side of an image at scale 1 of the crops."""
    if short_side_px is None:
        return max(size)
    return min(short_side_px * max(size) / min(size), MAX_ASPECT * short_side_px)


def _span(low: float, high: float) -> str:
    return " to ".join(dict.fromkeys(f"{bound:.0f}" for bound in (low, high)))
