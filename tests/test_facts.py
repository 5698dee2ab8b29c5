"""Every key of a config is a fact of what depends on it, unless it is marked `RunOnly`.

No test here knows a key by name: a key that becomes no fact is found when it is added.
"""

import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import components
from pipeline.config.config import Config
from pipeline.config.config_section import Facts, Section
from pipeline.console import Console
from pipeline.engine.stage import Context, Stage
from pipeline.records.snapshot import Snapshot
from stages.graph import GRAPH
from stages.pseudolabel.config import PseudolabelConfig
from stages.sandbox.config import SandboxConfig
from tests import finished_run
from tests.config_changes import changes
from tests.finished_run import run_folder
from tests.repository import ROOT, present

__all__ = ["run_folder"]
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")

FAMILIES = [
    ".".join(path.parent.relative_to(ROOT).parts)
    for path in present("stages/**/base.py")
    if "pipeline.config.components" in path.read_text(encoding="utf-8")
]


def configs() -> Iterator[type[Section]]:
    """The keys of each component of each family."""
    for family in FAMILIES:
        for name in components.names(family):
            module = importlib.import_module(f"{family}.{name}")
            for item in vars(module).values():
                is_here = isinstance(item, type) and item.__module__ == module.__name__
                if is_here and issubclass(item, components.Component):
                    yield item.Config


@pytest.mark.parametrize("kind", sorted({*configs()}, key=str), ids=lambda kind: kind.__name__)
def test_every_key_of_a_component_is_a_fact(kind: type[Section]) -> None:
    """Values of keys without a default do not matter here, but where they are components."""
    required = {name: "files" for name, field in kind.model_fields.items() if field.is_required()}
    try:
        section = kind.model_validate(required)
    except ValueError:
        section = kind.model_construct(None, **required)
    for key, other in changes(section):
        assert other.facts("key") != section.facts("key"), key


@pytest.fixture
def config(run_folder: Path) -> Config:
    """The finished run, with stages and labelers that it does not have."""
    values = finished_run.plain_values()
    clip = values["pseudolabel"]["labelers"]["clip"]
    values["pseudolabel"]["labelers"] |= {
        "own": {"name": "files"},
        "both": {"name": "ensemble", "rule": "agreement", "members": ["clip", "own"]},
        "sam": {**clip, "name": "sam_clip"},
        RESIZING: {**clip, "short_side_px": 32},
    }
    values["propose"] = {"model": "sandbox", "size_px": 32, "roles": ["ood", "test"]}
    values["report"] = {"notes": ["A note."]}
    values["train"]["validate_every"] = 1
    Path("more.yaml").write_text(yaml.safe_dump(values))
    found = finished_run.load(path=Path("more.yaml"))
    sandbox = SandboxConfig(spurious_cues=("labeled",))
    return replace(found, sections={**found.sections, "sandbox": sandbox})


UNSEEN = ("labelers.clip.weights", "labelers.sam.weights", "labelers.resizing.weights")
"""Keys that no real config has next to the sandbox's CLIP."""

RESIZING = "resizing"
"""A labeler that resizes images: without one, images as decoded and their bound do not matter."""


def may_be_idle(key: str, section: Section) -> bool:
    """Whether a key may change nothing in this section."""
    idle = isinstance(section, PseudolabelConfig) and RESIZING not in section.labelers
    return key in UNSEEN or (idle and key == "max_side_px")


def planned(config: Config, kind: type[Stage[Any]]) -> dict[str, Facts]:
    """The facts of each unit of a stage."""
    if kind.name == "sandbox":  # draws its own images
        config = replace(config, run=config.run.model_copy(update={"data": None}))
    stage = kind(config.sections[kind.name], Context(config, Console()))
    return {unit.name: unit.facts for unit in stage.plan()}


REFUSED = {
    "ingest": {"shard_size", "role", "images", "ids", "masks", "label_scheme"},
    "propose": {"model"},
    "pseudolabel": {"0", "1", "model"},
    "train": {"length", "on", "labeler", "confidence"},
}
"""By stage the last words of keys of which another value, as these tests choose it, is an error."""


@pytest.mark.parametrize("kind", GRAPH, ids=lambda kind: kind.name)
def test_every_key_of_a_stage_reaches_the_facts_of_a_unit(
    kind: type[Stage[Any]], config: Config
) -> None:
    """Alone, and next to the stages before it: sections that must agree refuse each other."""
    alone = {name: own for name, own in config.sections.items() if name != "propose"}
    plain = finished_run.load().sections
    section = config.sections[kind.name]
    refused = set(dict(changes(section)))
    for sections in (config.sections, {**alone, **plain}):
        if kind.name not in sections:
            continue
        with Snapshot().active():
            before = planned(replace(config, sections=sections), kind)
            for key, other in changes(sections[kind.name]):
                changed = replace(config, sections={**sections, kind.name: other})
                try:
                    after = planned(changed, kind)
                except Exception:  # the values are not checked, so that anything may be raised
                    continue
                refused.discard(key)
                assert after != before or may_be_idle(key, sections[kind.name]), key
    assert {key.rpartition(".")[2] for key in refused} <= REFUSED.get(kind.name, set()), refused


@pytest.mark.parametrize("kind", GRAPH, ids=lambda kind: kind.name)
def test_every_unit_has_a_version_among_its_facts(kind: type[Stage[Any]], config: Config) -> None:
    for name, facts in planned(config, kind).items():
        assert any(key.endswith(".version") for key in facts), name
    assert any(f"{kind.name}.version" in facts for facts in planned(config, kind).values())
