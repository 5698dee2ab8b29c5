"""The section `pseudolabel`: which labelers label the images of which roles."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.config.components import Choice, chosen_from
from pipeline.config.config_section import Name, RunOnly, Section
from pipeline.config.plain_words import Unit
from stages.ingest.config import Role
from stages.pseudolabel.labelers.base import Labeler

LabelerChoice = Annotated[Choice[Labeler], *chosen_from("stages.pseudolabel.labelers", Labeler)]


class PseudolabelConfig(Section):
    """The section `pseudolabel`."""

    labelers: dict[Name, LabelerChoice] = Field(min_length=1)
    """Labelers by the name of their labels; `name:` picks the component."""
    roles: tuple[Role, ...] = ("ood",)
    """Images to label for training. Labeled images are labeled too, to measure the labels on."""
    size_px: Annotated[int, Field(ge=32, le=4096, multiple_of=4)] = 512
    """Side of the stored masks: images are scaled so that their long side has this length."""
    max_side_px: Annotated[int, Field(ge=32, le=65536)] = 2560
    """Longest side of images as labelers get them that resize images by themselves; larger ones are
    reduced to it first. Bounds the memory of a batch."""
    batch_size: Annotated[int, Field(ge=1), RunOnly, Unit("images")] = 16
    """Images in a batch."""
    device: Annotated[str, RunOnly] = "auto"
    """cpu, cuda, mps, or auto: a GPU if there is one."""


def labeler_key(labeler: str) -> str:
    """The dotted config key of a labeler."""
    return f"pseudolabel.labelers.{labeler}"
