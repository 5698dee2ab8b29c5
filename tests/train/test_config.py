import math
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.config import parse_section
from pipeline.config.config_section import Section
from pipeline.errors import ConfigError
from stages.train.config import TrainConfig, VariantConfig

FILE = Path("run.yaml")
BASE: dict[str, Any] = {
    "model": {"name": "small_unet", "encoder_weights": None},
    "perturbation": "unimatch",
}
STUDENT = {"name": "student"}
STORED = {"name": "stored", "labeler": "clip"}


class ConfigFile(Section):
    train: TrainConfig


def parsed(**keys: Any) -> dict[str, VariantConfig]:
    return parse_section(ConfigFile, {"train": {**BASE, **keys}}, path=FILE).train.variants


def only(**keys: Any) -> VariantConfig:
    (variant,) = parsed(**keys).values()
    return variant


@pytest.mark.parametrize("variants", [{}, {"variants": None}, {"variants": {}}])
def test_without_variants_the_section_is_one_training(variants: dict[str, Any]) -> None:
    assert list(parsed(steps=7, **variants)) == ["default"]
    assert only(steps=7, **variants).steps == 7


def test_variants_override_the_keys_next_to_them() -> None:
    variants = {"plain": None, "long": {"steps": 9, "label_sources": [STUDENT, STORED]}}
    plain, long = parsed(steps=7, label_sources=[STUDENT], variants=variants).values()
    assert (plain.steps, long.steps) == (7, 9)
    assert [choice.name for choice in plain.label_sources] == ["student"]
    assert [choice.name for choice in long.label_sources] == ["student", "stored"]
    assert plain.model.plain() == long.model.plain() == BASE["model"]


@pytest.mark.parametrize(
    ("base", "own", "steps", "epochs"),
    [
        ({}, {}, 40_000, None),
        ({"steps": 7}, {"epochs": 2}, None, 2),
        ({"epochs": 2}, {"steps": 7}, 7, None),
        ({"epochs": 2}, {"batch_size": 4}, None, 2),
        ({"steps": None, "epochs": 3}, {}, None, 3),
    ],
)
def test_a_variant_is_as_long_as_it_says_itself(
    base: dict[str, Any], own: dict[str, Any], steps: int | None, epochs: int | None
) -> None:
    variant = only(**base, variants={"own": own})
    assert (variant.steps, variant.epochs) == (steps, epochs)


def test_variants_keep_the_order_of_the_file() -> None:
    assert list(parsed(variants={"b": {}, "a": {}, "c": {}})) == ["b", "a", "c"]


def test_a_variant_may_change_one_key_of_the_model() -> None:
    model = {"name": "unet", "encoder": "resnet18", "encoder_weights": None}
    variant = only(model=model, variants={"big": {"model": {"encoder": "resnet50"}}})
    assert variant.model.plain() == {**model, "encoder": "resnet50"}


def test_a_variant_with_another_model_takes_none_of_the_first_ones_keys() -> None:
    model = {"name": "unet", "encoder": "resnet18"}
    base = {"name": "small_unet", "encoder_weights": "sandbox"}
    variant = only(model=base, variants={"other": {"model": model}})
    assert variant.model.plain() == {**model, "encoder_weights": "imagenet"}


@pytest.mark.parametrize(
    ("sources", "roles"),
    [
        ([], ()),
        ([STUDENT], ("unlabeled",)),
        ([STORED], ("ood",)),
        ([STORED, STUDENT], ("unlabeled", "ood")),
        ([STORED, {**STUDENT, "on": "ood"}], ("ood",)),
    ],
)
def test_unlabeled_images_come_before_web_images(
    sources: list[dict[str, str]], roles: tuple[str, ...]
) -> None:
    assert only(label_sources=sources).roles == roles


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"stepz": 3}, r"train\.stepz: unknown key; did you mean 'steps'\?"),
        (
            {"variants": {"long": {"optimiser": "sgd"}}},
            r"train\.variants\.long\.optimiser: unknown key; did you mean 'optimizer'\?",
        ),
        (
            {"variants": {"long": {"model": {"encoder": "resnet18"}}}},
            r"train\.variants\.long\.model\.encoder: unknown key; did you mean 'encoder_weights'\?",
        ),
        (
            {"label_sources": [{"name": "student", "treshold": 0.5}]},
            r"train\.label_sources\.0\.treshold: unknown key; .*'threshold'",
        ),
        (
            {"label_sources": [STUDENT, {"name": "stored"}]},
            r"train\.label_sources\.1\.labeler: the key is missing",
        ),
        (
            {"label_sources": ["teacher"]},
            r"train\.label_sources\.0: .*use one of: ema, enhanced, guidance, ",
        ),
        (
            {"perturbation": "mixup"},
            r"train\.perturbation: .*'mixup'.*; use one of: classmix",
        ),
        ({"optimizer": "lion"}, r"train\.optimizer: 'lion' is wrong"),
        (
            {"steps": 0},
            r"train\.steps: 0 is wrong; write a whole number from 1 to 1000000000 or null",
        ),
        ({"scale": [2, 0.5]}, r"train\.scale: .*; write \[least, most\]"),
        (
            {"scale": [1e-300, 1e300]},
            r"train\.scale\.0: 1e-300 is wrong; write a number from 0\.01 to 100",
        ),
        (
            {"scale": [1, 101]},
            r"train\.scale\.1: 101 is wrong; write a number from 0\.01 to 100",
        ),
        ({"scale": [1, math.nan]}, r"train\.scale\.1: nan is wrong"),
        ({"scale": [1, math.inf]}, r"train\.scale\.1: inf is wrong"),
        ({"learning_rate": math.inf}, r"train\.learning_rate: inf is wrong"),
        ({"seeds": [0, 1, 0]}, r"train\.seeds: .*; 0 is listed twice; remove one"),
        ({"seeds": []}, r"train\.seeds: \[\] is wrong; .*at least 1 item"),
        ({"seeds": [-1]}, r"train\.seeds\.0: -1 is wrong; "),
        ({"seed": 1}, r"train\.seed: unknown key; did you mean 'seeds'\?"),
        ({"precision": "float8"}, r"train\.precision: 'float8' is wrong; "),
        (
            {"steps": 3, "epochs": 3},
            r"train: these keys are wrong; write `steps` or `epochs`, not both",
        ),
        (
            {"batch_size": 6, "accumulate": 4},
            r"train: .*`batch_size` 6 is not a multiple of `accumulate`",
        ),
        (
            {
                "perturbation": "classmix",
                "label_sources": [{"name": "ema"}],
                "batch_size": 2,
                "accumulate": 2,
            },
            r"train: .*classmix pastes one crop of a micro-batch into another; "
            "set `batch_size` to at least 4",
        ),
        (
            {"label_sources": ["previous"]},
            r"train: .*`previous` has no labels before a validation; "
            "set `validate_every`",
        ),
        (
            {"feature_discriminator": {}},
            r"train: .*`feature_discriminator` needs `label_sources`",
        ),
        (
            {"validate_every": "epochs"},
            r"train\.validate_every: 'epochs' is wrong; "
            r"write a whole number from 1, 'epoch' or null$",
        ),
        (
            {"validate_every": 0},
            r"train\.validate_every: 0 is wrong; "
            r"write a whole number from 1, 'epoch' or null$",
        ),
        (
            {"validate_every": True},
            r"train\.validate_every: true is wrong; write a number, not true",
        ),
        ({"steps": True}, r"train\.steps: true is wrong; write a number"),
        (
            {"scale": [True, 2]},
            r"train\.scale: \[True, 2\] is wrong; write",
        ),
        (
            {"variants": {"plain": {"title": "web"}, "web": None}},
            r"train\.variants: .*; two variants have the title 'web' in tables; give each its own",
        ),
        (
            {"title": "a", "variants": {"b": None, "c": None}},
            r"train\.variants: .*two variants have the title 'a' in ",
        ),
        ({"variants": ["long"]}, r"train\.variants: .*is wrong"),
        ({"variants": {"long": 3}}, r"train\.variants\.long: 3 is wrong"),
        ({"variants": {"a/b": {}}}, r"train\.variants\.a/b: the name 'a/b' is wrong"),
    ],
)
def test_mistakes_name_the_variant_and_the_key(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^run\.yaml: {message}") as error:
        parsed(**keys)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("base", "own", "where"),
    [
        ({"stepss": 3}, {}, "train.stepss"),
        ({"steps": 3}, {"stepss": 4}, "train.variants.long.stepss"),
        ({"stepss": 3}, {"stepss": 4}, "train.variants.long.stepss"),
        ({"model": {"name": "unet", "encodr": "a"}}, {"steps": 3}, "train.model.encodr"),
        (
            {"model": {"name": "unet", "encodr": "a"}},
            {"model": {"encoder_weights": None}},
            "train.model.encodr",
        ),
        (
            {"model": {"name": "unet", "encoder": "a"}},
            {"model": {"encodr": "b"}},
            "train.variants.long.model.encodr",
        ),
        (
            {"label_sources": [{"name": "stored", "labeler": "clip"}]},
            {"label_sources": [{"name": "stored"}]},
            "train.variants.long.label_sources.0.labeler",
        ),
        ({"label_sources": [{"name": "stored"}]}, {}, "train.label_sources.0.labeler"),
        ({"batch_size": 6}, {"accumulate": 4}, "train.variants.long"),
    ],
)
def test_a_mistake_is_named_where_it_was_written(
    base: dict[str, Any], own: dict[str, Any], where: str
) -> None:
    with pytest.raises(ConfigError) as error:
        parsed(**base, variants={"long": own})
    assert error.value.where == f"run.yaml: {where}"


@pytest.mark.parametrize("variants", [{}, {"variants": {"long": None, "short": {"steps": 3}}}])
def test_a_missing_key_is_wanted_next_to_the_variants(variants: dict[str, Any]) -> None:
    values = {"train": {"model": "small_unet", **variants}}
    with pytest.raises(ConfigError) as error:
        parse_section(ConfigFile, values, path=FILE)
    assert str(error.value) == "run.yaml: train.perturbation: the key is missing; add it"


def test_a_value_of_a_preset_is_named_with_the_preset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.train.preset.FOLDER", tmp_path)
    (tmp_path / "mine.yaml").write_text("{batch_size: 0, crop_px: 64, datasets: {voc: {steps: 0}}}")
    with pytest.raises(ConfigError) as error:
        parsed(preset="mine")
    assert error.value.where == "run.yaml: train.batch_size (from the preset mine)"
    with pytest.raises(ConfigError) as error:
        parsed(batch_size=2, variants={"long": {"preset": "mine", "dataset": "voc"}})
    assert error.value.where == "run.yaml: train.steps (from the preset mine)"
    with pytest.raises(ConfigError) as error:
        parsed(preset="mine", batch_size=2, crop_px=3)
    assert error.value.where == "run.yaml: train.crop_px"


@pytest.mark.parametrize(
    ("sources", "name"),
    [
        ([STUDENT, {**STUDENT, "threshold": 0.5}], "student_unlabeled"),
        ([STORED, {**STORED, "confidence": "one"}], "stored_ood_clip"),
    ],
)
def test_two_label_sources_may_not_share_a_name(sources: list[dict[str, Any]], name: str) -> None:
    """Their losses would share it too."""
    with pytest.raises(ConfigError, match=rf"label_sources: .*; two sources are named {name}; "):
        parsed(label_sources=sources)


def test_one_kind_of_source_may_label_two_roles_or_read_two_labelers() -> None:
    sources = [STUDENT, {**STUDENT, "on": "ood"}, STORED, {**STORED, "labeler": "sam"}]
    assert len(only(label_sources=sources).label_sources) == 4


def test_facts_hold_what_the_weights_depend_on_and_nothing_else() -> None:
    facts = only(label_sources=[STORED]).facts("train.variants.default")
    keys = {key.removeprefix("train.variants.default.") for key in facts}
    assert {"steps", "precision", "model.name", "model.weights", "perturbation.version"} <= keys
    assert {"label_sources.0.name", "label_sources.0.labeler"} <= keys
    assert {"epochs", "accumulate", "clip_norm", "validate_every"} <= keys
    assert not keys & {"title", "workers", "device", "checkpoint_every", "seeds", "compile"}
