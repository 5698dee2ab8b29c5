"""Presets are scored by the protocol of their papers, or the user is told."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from pipeline.config import config as config_file
from pipeline.config.config import Config
from pipeline.errors import ConfigError
from stages.graph import GRAPH
from stages.models.segmenters.protocol import WHOLE_IMAGE, Protocol, protocol_of
from stages.train.config import TrainConfig, VariantConfig
from tests.repository import ROOT
from tests.train.presets import EACH_DATASET, parsed

CITYSCAPES = {"side_px": 801, "stride_px": 534, "mode": "clip", "average": "probabilities"}
SEMIVL = {"side_px": 512, "stride_px": 426, "mode": "snap", "average": "logits"}
V2 = {"side_px": 798, "stride_px": 532, "mode": "snap", "average": "probabilities"}

PUBLISHED: dict[tuple[str, str], dict[str, Any]] = {  # of the papers' code; others: whole images
    **{
        (name, "cityscapes"): {"sliding_window": CITYSCAPES}
        for name in ("supervised", "fixmatch", "unimatch", "prevmatch", "semivl")
    },
    ("unimatch-v2", "cityscapes"): {"sliding_window": V2},
    ("semivl", "voc"): {"short_side_px": 512, "sliding_window": SEMIVL},
    ("semivl", "ade20k"): {"short_side_px": 512, "sliding_window": SEMIVL},
    ("semivl", "coco"): {"sliding_window": SEMIVL},
    ("semiovs-semivl", "voc"): {"short_side_px": 512, "sliding_window": SEMIVL},
    ("classmix", "cityscapes"): {"short_side_px": 512},
}


@pytest.mark.parametrize(("name", "dataset"), EACH_DATASET)
def test_each_preset_knows_how_it_was_scored(name: str, dataset: str) -> None:
    (variant,) = parsed(preset=name, dataset=dataset).values()
    if name == "supmix-sufd":  # its paper could not be read
        assert variant.published_protocol is None
        return
    expected = Protocol.model_validate(PUBLISHED.get((name, dataset), {}))
    assert variant.published_protocol == expected


@pytest.mark.parametrize(("name", "dataset"), EACH_DATASET)
def test_shipped_configs_score_by_it(name: str, dataset: str, tmp_path: Path) -> None:
    path = ROOT / f"configs/datasets/{dataset}.yaml"
    config = load(path, f"train.preset={name}", f"workspace={tmp_path}")
    variant = only(config)
    expected = PUBLISHED.get((name, dataset), {})
    assert protocol_of(config, variant.published_protocol).predicts_as(
        Protocol.model_validate(expected)
    )


def load(path: Path, *overrides: str) -> Config:
    return config_file.load(path, {stage.name: stage.Config for stage in GRAPH}, overrides)


def only(config: Config) -> VariantConfig:
    section = config.section(TrainConfig)
    assert section is not None
    (variant,) = section.variants.values()
    return variant


SMALL = {"model": {"name": "small_unet", "encoder_weights": None}, "label_sources": []}


@pytest.fixture
def configured(
    tiny: dict[str, Any], write_config: Callable[..., Path]
) -> Callable[[Any, Any], Path]:
    """Writes a config: ``configured(evaluate, train)``."""

    def write(evaluate: Any, train: Any) -> Path:
        sections = {"train": {**SMALL, "crop_px": 32, "batch_size": 2, "steps": 1, **train}}
        if evaluate is not None:
            sections["evaluate"] = evaluate
        return write_config({**tiny, **sections})

    return write


def test_published_keys_are_those_of_each_preset(configured: Callable[[Any, Any], Path]) -> None:
    variants = {"a": {"preset": "semivl"}, "b": {"preset": "unimatch", "dataset": "voc"}}
    config = load(configured({"protocol": "published"}, {"variants": variants}))
    section = config.section(TrainConfig)
    assert section is not None
    a, b = (protocol_of(config, section.variants[name].published_protocol) for name in variants)
    assert (a.short_side_px, b) == (512, WHOLE_IMAGE)
    assert a.sliding_window is not None
    assert a.sliding_window.model_dump() == SEMIVL


def test_own_keys_override_published_ones(configured: Callable[[Any, Any], Path]) -> None:
    own = {"protocol": "published", "short_side_px": None, "flip": True}
    config = load(configured(own, {"preset": "semivl", "dataset": "voc"}))
    found = protocol_of(config, only(config).published_protocol)
    assert (found.short_side_px, found.flip) == (None, True)
    assert found.sliding_window is not None


def test_facts_hold_the_keys_and_not_the_name(configured: Callable[[Any, Any], Path]) -> None:
    """Scores by keys that are written out are the same scores."""
    train = {"preset": "semivl", "dataset": "voc"}
    named = load(configured({"protocol": "published"}, train))
    facts = protocol_of(named, only(named).published_protocol).facts("evaluate")
    spelled = load(configured({"short_side_px": 512, "sliding_window": SEMIVL}, train))
    assert facts == protocol_of(spelled, only(spelled).published_protocol).facts("evaluate")
    assert not [key for key in facts if "protocol" in key]


WARNING = (
    "{where}: in its paper semivl on voc was scored by {{short_side_px: 512, sliding_window: "
    "{{average: logits, side_px: 512, stride_px: 426}}}}; scores of default are by another "
    "protocol and cannot be compared with it; set `evaluate: {{protocol: published}}` "
    "without other keys"
)


@pytest.mark.parametrize(
    ("evaluate", "train", "is_told"),
    [
        ({}, {}, True),
        ({"short_side_px": 512}, {}, True),
        ({"protocol": "published", "flip": True}, {}, True),
        ({"protocol": "published"}, {}, False),
        ({"protocol": "published", "batch_size": 1}, {}, False),
        ({"short_side_px": 512, "sliding_window": SEMIVL}, {}, False),
        (None, {}, False),  # nothing is scored
        (None, {"validate_every": 1}, True),
    ],
)
def test_another_protocol_is_told(
    evaluate: Any,
    train: dict[str, Any],
    is_told: bool,
    configured: Callable[[Any, Any], Path],
    maskmill: Callable[..., CompletedProcess[str]],
) -> None:
    config = configured(evaluate, {"preset": "semivl", "dataset": "voc", **train})
    shown = maskmill("status", "--config", config)
    text = " ".join((shown.stdout + shown.stderr).split())
    where = f"{config}: evaluate"
    assert (WARNING.format(where=where) in text) == is_told
    assert ("in its paper" in text) == is_told


def test_it_is_told_on_the_page_and_under_the_tables(
    configured: Callable[[Any, Any], Path],
    maskmill: Callable[..., CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    train = {"preset": "classmix", "dataset": "cityscapes", "perturbation": "unimatch"}
    config = configured({}, {**train, "supervised_loss": "cross_entropy"})
    done = maskmill("run", "--config", config)
    assert done.returncode == 0, done.stderr
    assert "in its paper classmix on cityscapes" in done.stdout.split("mean IoU")[-1] + done.stderr
    page = tmp_path / "workspace/artifacts/tiny/report/index.html"
    assert "in its paper classmix on cityscapes" in page.read_text(encoding="utf-8")
    stale = maskmill(
        *("run", "--dry-run", "--config", config, "--set", "evaluate.protocol=published")
    )
    assert "evaluate.short_side_px none -> 512: 2 units" in stale.stdout


@pytest.mark.parametrize(
    "train",
    [
        {"perturbation": "unimatch"},
        {"preset": "supmix-sufd", "dataset": "chase-db1", "feature_discriminator": None},
    ],
)
def test_a_protocol_that_is_unknown_cannot_be_asked_for(
    train: dict[str, Any],
    configured: Callable[[Any, Any], Path],
    maskmill: Callable[..., CompletedProcess[str]],
) -> None:
    config = configured({"protocol": "published"}, train)
    expected = (
        f"{config}: evaluate.protocol: a training has no preset whose protocol is known; write "
        "keys such as `sliding_window` instead, or set the `preset` and its `dataset`"
    )
    loaded = load(config)
    with pytest.raises(ConfigError) as raised:
        protocol_of(loaded, only(loaded).published_protocol)
    assert str(raised.value) == expected
    done = maskmill("run", "--dry-run", "--config", config)
    assert done.returncode == 1
    assert expected in " ".join(done.stderr.split())
