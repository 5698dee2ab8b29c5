"""The section `ingest`: the sources of images, their roles, and what is known about them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PositiveInt,
    WithJsonSchema,
    model_validator,
)

from pipeline.config.components import Choice, chosen_from
from pipeline.config.config import Config
from pipeline.config.config_section import Name, RunOnly, Section, UnlessDefault
from pipeline.config.plain_words import Unit
from pipeline.errors import ConfigError
from pipeline.images.limits import Limits, ValueRange
from stages.ingest.sources.base import Drawing, Source

Role = Literal["labeled", "unlabeled", "ood", "val", "test"]
MASKED: tuple[Role, ...] = ("labeled", "val", "test")
"""Roles whose images need label files."""


def _as_text(name: object) -> object:
    return str(name) if isinstance(name, int) else name


SplitName = Annotated[
    str, BeforeValidator(_as_text), WithJsonSchema({"type": ["string", "integer"]})
]
"""Name of a split, such as 92 or 1_16: a string or a number in the file."""


def _ascending(values: ValueRange) -> ValueRange:
    if values[0] >= values[1]:
        raise ValueError("write the darkest value first: [0, 4095]")
    return values


_Value = Annotated[int, Field(ge=0, le=65535)]

Counts = dict[Name, PositiveInt]
"""Numbers of images by source."""


class SourceConfig(Section):
    """One source of images."""

    role: Role
    """Use of its images."""
    source: Annotated[Choice[Source], *chosen_from("stages.ingest.sources", Source)]
    """Location of its images: {name: folder, images: ..., masks: ...}."""
    label_scheme: str | None = None
    """The vocabulary's scheme that reads the label files; default: pixel values are class ids, and
    colours those of the classes (the scheme `class colors`)."""
    value_range: Annotated[
        Annotated[tuple[_Value, _Value], AfterValidator(_ascending)] | None, UnlessDefault
    ] = None
    """The values of grey images of more than 8 bits that become black and white, e.g. [0, 4095] for
    12 bits in files of 16. Default: the upper 8 of 16 bits are kept."""

    exif_orientation: Annotated[Literal["apply", "ignore"], UnlessDefault] = "apply"
    """Whether images are turned by the orientation in their EXIF data. Loaders of published data
    sets ignore it, so their label files fit the images as they are stored."""

    def create(self, config: Config, name: str) -> Source:
        """Builds the source of this name in a run's config."""
        return self.source.create(
            data=config.data,
            cache=config.artifacts / "tar_indexes",
            where=f"{config.path}: ingest.sources.{name}.source",
            only_masked=self.role == "labeled",
            drawing=Drawing(
                config.vocabulary,
                drawn_labels(config),
                ingest_section(config).limits,
                as_stored=self.exif_orientation == "ignore",
            ),
        )


def drawn_labels(config: Config) -> Path:
    """Folder of the label files that are drawn from annotations."""
    return config.artifacts / "drawn_labels"


class IngestConfig(Section):
    """The section `ingest`."""

    sources: dict[Name, SourceConfig] = Field(min_length=1)
    """Sources by name."""
    shard_size: Annotated[int, Field(ge=1, le=4096), Unit("images")] = 64
    """Images a shard; fixed once a run has images."""
    limits: Limits = Limits()
    """Limits of an image file; images over a limit are rejected."""
    split: Annotated[SplitName | None, RunOnly] = None
    """The split that the lists of the sources belong to, for `maskmill data check`."""
    expected: Annotated[dict[SplitName, Counts], RunOnly] = Field(default_factory=dict)
    """By split: the number of images that each source should have."""
    download: Annotated[dict[Annotated[str, Field(min_length=1)], str], RunOnly] = Field(
        default_factory=dict
    )
    """By path: where to get the files at or below it. The sources spell the path the same way."""

    @model_validator(mode="after")
    def _expects_known_sources(self) -> Self:
        for split, counts in self.expected.items():
            if unknown := sorted(counts.keys() - self.sources.keys()):
                known = ", ".join(self.sources)
                what = f"expected.{split} names no source of this config: {unknown[0]}"
                raise ValueError(f"{what}; use one of: {known}")
        return self


def ingest_section(config: Config) -> IngestConfig:
    """Returns the section that names the sources.

    Raises:
        ConfigError: The config has no such section.
    """
    section = config.sections.get("ingest")
    if not isinstance(section, IngestConfig):
        fix = "add a section `ingest: {sources: ...}`"
        raise ConfigError("the config names no images", where=str(config.path), fix=fix)
    return section
