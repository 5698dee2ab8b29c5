"""Configs of presets."""

from pathlib import Path
from typing import Any

from pipeline.config.config import parse_section
from pipeline.config.config_section import Section
from stages.train import preset
from stages.train.config import TrainConfig, VariantConfig

ALL = preset.names()
EACH_DATASET = [(name, dataset) for name in ALL for dataset in preset.datasets(name)]


class ConfigFile(Section):
    train: TrainConfig


def parsed(**keys: Any) -> dict[str, VariantConfig]:
    return parse_section(ConfigFile, {"train": keys}, path=Path("run.yaml")).train.variants
