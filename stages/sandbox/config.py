"""The section `sandbox`: the scenes to draw for each role."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.config_section import Section
from pipeline.config.plain_words import Unit

SCENES_A_ROLE = 100_000
"""Indices reserved for each role, so that two roles never draw the same scene."""

Count = Annotated[int, Field(ge=1, le=SCENES_A_ROLE), Unit("scenes")]


class SandboxConfig(Section):
    """The section `sandbox`: the number of scenes for each role, and their properties."""

    seed: Annotated[int, Field(ge=1, lt=2**63)] = 1
    """Seed of the world. 0 is not allowed: the tiny models were trained on its web scenes."""
    long_side_px: Annotated[int, Field(ge=32, le=1024)] | None = None
    """Longer side of the images in pixels. Default: 128; for web images 96 to 320."""
    spurious_cues: tuple[Literal["labeled", "unlabeled", "ood", "val", "test"], ...] = ()
    """Roles in which boats, and no other targets, are on water, and buses likewise on road."""
    ood_masks: bool = False
    """Whether to write label files for web images too, to measure what perfect labels give."""
    labeled: Count = 8
    """Scenes of the target domain with label files."""
    unlabeled: Count = 256
    """Scenes of the target domain without label files."""
    ood: Count = 320
    """Web scenes, without label files."""
    val: Count = 64
    """Labeled scenes to choose settings on."""
    test: Count = 256
    """Labeled scenes for the final measurement; no setting is chosen on them."""
