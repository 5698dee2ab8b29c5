"""The model of a whole config file: the keys of the run, and a section for each stage."""

from typing import Any

from pydantic import create_model

from pipeline.config.config import RunConfig
from pipeline.config.config_section import Section
from stages.graph import GRAPH


def sections() -> dict[str, type[Section]]:
    """The model of each stage's section, by stage name."""
    return {stage.name: stage.Config for stage in GRAPH}


def whole_config() -> type[Section]:
    """The model of a config file."""
    fields: dict[str, Any] = {name: (kind | None, None) for name, kind in sections().items()}
    return create_model("ConfigFile", __base__=RunConfig, **fields)
