"""The section `ingest`: the sources of images, what each is for, and what is known of them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from pipeline.config.components import Choice, chosen_from
from pipeline.config.config import Config
from pipeline.config.config_section import Name, RunOnly, Section
from pipeline.errors import ConfigError
from pipeline.images.limits import Limits
from stages.ingest.sources.base import Source

Role = Literal["labeled", "unlabeled", "ood", "val", "test"]
MASKED: tuple[Role, ...] = ("labeled", "val", "test")
"""Roles whose images need label files."""


def _as_text(name: object) -> object:
    return str(name) if isinstance(name, int) else name


SplitName = Annotated[str, BeforeValidator(_as_text)]
"""Name of a split, such as 92 or 1_16: in a file a string, or a number."""

Counts = dict[Name, PositiveInt]
"""Numbers of images by source."""


class SourceConfig(Section):
    """One source of images."""

    role: Role
    """What its images are for."""
    source: Annotated[Choice[Source], *chosen_from("stages.ingest.sources", Source)]
    """Where they come from: {name: folder, images: ..., masks: ...}."""
    label_scheme: str | None = None
    """The vocabulary's scheme that reads the label files; default: pixel values are class ids."""

    def create(self, config: Config, name: str) -> Source:
        """Builds the source that a run's config has by this name."""
        return self.source.create(
            data=config.data,
            beside=config.path.parent,
            cache=config.artifacts / "tar_indexes",
            where=f"{config.path}: ingest.sources.{name}.source",
        )


class IngestConfig(Section):
    """The section `ingest`."""

    sources: dict[Name, SourceConfig] = Field(min_length=1)
    """Sources by name."""
    shard_size: Annotated[int, Field(ge=1, le=4096)] = 64
    """Images a shard; fixed once a run has images."""
    limits: Limits = Limits()
    """What an image may cost; one that costs more is rejected."""
    split: Annotated[SplitName | None, RunOnly] = None
    """Which split the lists of the sources are, for `maskmill data check`."""
    expected: Annotated[dict[SplitName, Counts], RunOnly] = Field(default_factory=dict)
    """By split: the number of images that each source should have."""
    download: Annotated[dict[Annotated[str, Field(min_length=1)], str], RunOnly] = Field(
        default_factory=dict
    )
    """Where to get what lies at or below a path, spelled as the sources spell it."""

    @model_validator(mode="after")
    def _counts_its_own_sources(self) -> Self:
        for split, counts in self.expected.items():
            if strangers := sorted(counts.keys() - self.sources.keys()):
                known = ", ".join(self.sources)
                raise ValueError(f"expected.{split} counts {strangers[0]}; use one of: {known}")
        return self


def ingest_section(config: Config) -> IngestConfig:
    """The section that names the sources.

    Raises:
        ConfigError: There is none.
    """
    section = config.sections.get("ingest")
    if not isinstance(section, IngestConfig):
        fix = "add `ingest: {sources: ...}` to it"
        raise ConfigError("the config names no images", where=str(config.path), fix=fix)
    return section
