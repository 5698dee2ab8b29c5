"""Presets as they are written, and how the keys of a config are laid over them."""

import re
from typing import Any

import pytest

from pipeline.config.yaml_files import read_yaml
from pipeline.errors import ConfigError
from stages.train import preset
from stages.train.config import TrainConfig
from tests.train.presets import ALL, EACH_DATASET, parsed

DEEPLAB = {
    "name": "deeplabv3plus",
    "encoder": "tu-resnet101s.gluon_in1k",
    "encoder_weights": "imagenet",
}


def file_of(name: str) -> dict[str, Any]:
    return read_yaml(preset.FOLDER / f"{name}.yaml", fix="ship it")


def test_all_published_trainings_are_there() -> None:
    assert [
        *("classmix", "fixmatch", "prevmatch", "semiovs-prevmatch", "semiovs-semivl"),
        *("semiovs-unimatch", "semivl", "supervised", "supmix-sufd", "unimatch", "unimatch-v2"),
        "zero-shot-sam-clip",
    ] == ALL


@pytest.mark.parametrize("name", ALL)
def test_a_preset_names_its_paper_in_its_first_lines(name: str) -> None:
    lines = (preset.FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    comment = " ".join(line for line in lines[:4] if line.startswith("#"))
    assert re.search(r"arXiv \d{4}\.\d{5}", comment)


def test_without_a_preset_keys_stay_as_they_are() -> None:
    keys = {"model": "small_unet", "steps": 7}
    assert preset.expanded(keys) == keys


def test_a_dataset_s_values_come_before_the_file_s_and_own_keys_before_both() -> None:
    keys = {"preset": "unimatch", "dataset": "cityscapes", "crop_px": 65}
    found = preset.expanded(keys)
    published = file_of("unimatch")
    assert found["model"] == published["model"] == DEEPLAB
    assert found["label_sources"] == [{"name": "student", "threshold": 0}]
    assert (found["epochs"], found["learning_rate"], found["crop_px"]) == (240, 0.005, 65)
    assert "datasets" not in found


def test_own_mappings_are_merged_and_own_lists_replace() -> None:
    sources = [{"name": "ema"}]
    keys = {"preset": "unimatch", "model": {"encoder": "resnet18"}, "label_sources": sources}
    found = preset.expanded(keys)
    assert found["model"] == {**DEEPLAB, "encoder": "resnet18"}
    assert found["label_sources"] == sources
    other = preset.expanded({"preset": "unimatch", "model": {"name": "small_unet"}})
    assert other["model"] == {"name": "small_unet"}


@pytest.mark.parametrize(("published", "own"), [("epochs", "steps"), ("steps", "epochs")])
def test_an_own_length_takes_the_place_of_the_published_one(published: str, own: str) -> None:
    name = {"epochs": "unimatch", "steps": "classmix"}[published]
    assert published in preset.expanded({"preset": name})
    found = preset.expanded({"preset": name, own: 3})
    assert (found[own], published in found) == (3, False)


def test_a_dataset_may_count_in_another_unit_than_its_preset() -> None:
    found = preset.expanded({"preset": "semivl", "dataset": "cityscapes"})
    assert (found["steps"], "epochs" in found) == (83760, False)


def test_null_takes_back_what_a_preset_has() -> None:
    plain: dict[str, Any] = {
        "title": "labeled only",
        "label_sources": [],
        "feature_discriminator": None,
    }
    config = TrainConfig.model_validate(
        {"preset": "supmix-sufd", "variants": {"whole": None, "plain": plain}}
    )
    assert config.variants["whole"].feature_discriminator is not None
    assert config.variants["plain"].feature_discriminator is None


def test_a_variant_has_the_preset_that_it_names() -> None:
    """Keys beside the variants are a user's too, and come before any preset's."""
    variants: dict[str, Any] = {"plain": {"preset": "fixmatch"}, "more": None}
    values = {"preset": "unimatch", "batch_size": 3, "seeds": [4], "variants": variants}
    plain, more = parsed(**values).values()
    assert (plain.preset, plain.perturbation.name) == ("fixmatch", "fixmatch")
    assert (more.preset, more.perturbation.name) == ("unimatch", "unimatch")
    assert (plain.batch_size, more.batch_size) == (3, 3)
    assert plain.seeds == more.seeds == (4,)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"preset": "unimacht"}, r"preset: 'unimacht' is wrong; use one of: classmix, "),
        ({"preset": ["unimatch"]}, r"preset: \['unimatch'\] is wrong; "),
        (
            {"preset": "classmix", "dataset": "chase-db1"},
            r"dataset: 'chase-db1' is wrong; classmix has values for cityscapes, voc; ",
        ),
        (
            {"dataset": "voc", "model": "small_unet", "perturbation": "unimatch"},
            r"dataset: 'voc' is wrong; set `preset` too: `dataset` selects among its values",
        ),
        ({"preset": "unimatch", "dataset": ["voc"]}, r"dataset: \['voc'\] is wrong; "),
        ({"preset": "unimatch", "dataset": {}}, r"dataset: \{\} is wrong; "),
    ],
)
def test_mistakes_are_one_line(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^run\.yaml: train\.{message}"):
        parsed(**keys)


@pytest.mark.parametrize(("name", "dataset"), EACH_DATASET)
def test_a_preset_is_its_keys(name: str, dataset: str) -> None:
    """Every one can be read, and a training that spells it out is the same training."""
    (short,) = parsed(preset=name, dataset=dataset).values()
    keys = preset.expanded({"preset": name, "dataset": dataset})
    del keys["preset"], keys["dataset"]
    (long,) = parsed(**keys).values()
    named = {"preset", "dataset"}
    assert short.model_dump(exclude=named) == long.model_dump(exclude=named)
