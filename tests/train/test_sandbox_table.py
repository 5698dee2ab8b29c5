"""The configured comparison: fair arms, which no change of the config may make unfair unseen."""

import pytest

from pipeline.config import config as config_file
from pipeline.config.config import Config
from stages.graph import GRAPH
from stages.train.config import TrainConfig
from tests.repository import ROOT

BASE = "labeled-only"


@pytest.fixture
def config() -> Config:
    sections = {stage.name: stage.Config for stage in GRAPH}
    return config_file.load(ROOT / "configs/sandbox-table.yaml", sections)


def train(config: Config) -> TrainConfig:
    section = config.sections["train"]
    assert isinstance(section, TrainConfig)
    return section


def test_arms_differ_in_one_label_source_and_nothing_else(config: Config) -> None:
    variants = train(config).variants
    assert next(iter(variants)) == BASE  # what gains are measured against
    assert [len(variant.label_sources) for variant in variants.values()] == [0, *[1] * 6]
    shared = [
        variant.model_dump(exclude={"title", "label_sources"}) for variant in variants.values()
    ]
    assert all(keys == shared[0] for keys in shared)
    assert variants[BASE].seeds == (0, 1, 2)


def test_every_arm_can_be_trained_and_every_labeler_is_a_control(config: Config) -> None:
    """Building the stages checks labelers, roles and masks against each other."""
    from pipeline.console import Console
    from pipeline.engine.stage import Context

    for stage in GRAPH:
        stage(config.sections[stage.name], Context(config, Console()))
    facts = config.sections["pseudolabel"].facts("pseudolabel")
    assert {"ood", "unlabeled", "val", "test"} == set(facts["pseudolabel.roles"])  # type: ignore[arg-type]
