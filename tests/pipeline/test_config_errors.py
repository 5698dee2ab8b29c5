import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml

from pipeline.config.config import load
from pipeline.config.config_section import Section
from pipeline.config.plain_words import expected
from pipeline.errors import ConfigError
from stages.graph import GRAPH

RUN_KEYS = ("cluster", "data", "run", "vocabulary", "workspace")
SECTIONS = {stage.name: stage.Config for stage in GRAPH}


WriteConfig = Callable[..., Path]


SOURCE = "ingest.sources.ood"


SOURCES = "ingest: {sources: {ood: {source"


WRONG_VALUES = {
    "ingset={}": "unknown key; did you mean 'ingest'?",
    "runn=a": "unknown key; did you mean 'run'?",
    "speed=1": f"unknown key; use one of: {', '.join(sorted([*SECTIONS, *RUN_KEYS]))}",
    "cluster.worker=1": "unknown key; did you mean 'workers'?",
    "cluster.address=localhost": "'localhost' is wrong; ",
    "ingest.shard_sise=8": "unknown key; did you mean 'shard_size'?",
    f"{SOURCE}.rolle=ood": "unknown key; did you mean 'role'?",
    f"{SOURCE}.source.imagess=x": "unknown key; did you mean 'images'?",
    f"{SOURCE}.source.name=foldr": "no component 'foldr'; use one of: coco_json, ",
    f"{SOURCE}.source.name=[folder]": "no component ['folder']; use one of: coco_json, ",
    f"{SOURCE}.source=foldr": "no component 'foldr'; use one of: coco_json, ",
    f"{SOURCE}.source=7": "7 is wrong; "
    "write a name, or a mapping with the key `name`; one of: coco_json, ",
    f"{SOURCE}.source={{images: x}}": "these keys are wrong; "
    "write a name, or a mapping with the key `name`; one of: coco_json, ",
    f"{SOURCE}.role=training": "'training' is wrong; write 'labeled', 'unlabeled', ",
    "ingest.sources.Big Ones={role: ood, source: {name: folder, images: x}}": "the name 'Big Ones' "
    "is wrong; ",
    "ingest.shard_size=many": "'many' is wrong; ",
    "ingest.shard_size=0": "0 is wrong; ",
    "ingest.shard_size=true": "true is wrong; write a number, not true or false",
    "ingest.expected={a: {ood: true}}": "these keys are wrong; write a number, not true or false",
    "ingest.limits.max_seconds=true": "true is wrong; write a number, not true or false",
    "ingest=5": "5 is wrong; ",
    "ingest.sources={}": "{} is wrong; ",
    "run=../up": "'../up' is wrong; ",
    "run=": "null is wrong; ",
    "train.model=unett": "no component 'unett'; use one of: ",
    "train.stepss=3": "unknown key; did you mean 'steps'?",
    "train.label_sources.0.threshold=2": "2 is wrong; write a number from 0 to 1",
    "train.label_sources.0.name=studnt": "no component 'studnt'; use one of: ",
    "train.label_sources.1=teacher": "no component 'teacher'; use one of: ",
    "train.variants.long.stepss=3": "unknown key; did you mean 'steps'?",
}
"""Errors of values that are written into a file or set by an override."""


WRONG_INSIDE = {
    f"{SOURCE}.source=folder": (f"{SOURCE}.source.images", "the key is missing; add it"),
    f"{SOURCE}.source={{name: folder, imagess: x}}": (
        f"{SOURCE}.source.imagess",
        "unknown key; did you mean 'images'?",
    ),
    "ingest.download={'': here}": (
        "ingest.download.",
        "the name '' is wrong; write text that is not empty",
    ),
    "train.label_sources=[{name: stored}]": (
        "train.label_sources.0.labeler",
        "the key is missing; add it",
    ),
}
"""The key that is wrong in an override's value, and what is said of it."""


@pytest.fixture
def training(tiny: dict[str, Any]) -> dict[str, Any]:
    """The config `tiny` with a training."""
    sources = [{"name": "student"}, {"name": "ema"}]
    train = {"model": "small_unet", "perturbation": "unimatch", "label_sources": sources}
    return {**tiny, "train": train}


def put(values: dict[str, Any], override: str) -> None:
    """Writes what an override says into plain values."""
    key, _, text = override.partition("=")
    *parents, last = (int(step) if step.isdecimal() else step for step in key.split("."))
    target: Any = values
    for step in parents:
        target = target.setdefault(step, {}) if isinstance(target, dict) else target[step]
    target[last] = yaml.safe_load(text)


def error_of(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        load(path, SECTIONS, overrides)
    return str(error.value)


@pytest.mark.parametrize("override", WRONG_VALUES)
def test_a_wrong_value_is_named_as_it_was_written(
    override: str, training: dict[str, Any], write_config: WriteConfig, tmp_path: Path
) -> None:
    """In an override, in the file, or in the file that this one extends."""
    key, message = override.partition("=")[0], WRONG_VALUES[override]
    path = write_config(training)
    assert error_of(path, override).startswith(f"--set {override}: {message}")
    put(training, override)
    assert error_of(write_config(training)).startswith(f"{path}: {key}: {message}")
    over = tmp_path / "over.yaml"
    over.write_text("{extends: config.yaml, cluster: {workers: 1}, propose: {model: sandbox}}")
    assert error_of(over).startswith(f"{path}: {key}: {message}")


@pytest.mark.parametrize("override", WRONG_INSIDE)
def test_a_wrong_key_inside_an_override_is_named_with_it(
    override: str, training: dict[str, Any], write_config: WriteConfig
) -> None:
    key, message = WRONG_INSIDE[override]
    assert error_of(write_config(training), override) == f"--set {override}: {key}: {message}"


@pytest.mark.parametrize(
    ("own", "name", "key", "message"),
    [
        ("ingest: {shard_size: 0}", "over", "ingest.shard_size", "0 is wrong"),
        ("ingest: {shard_size: }", "config", "ingest.shard_size", "-1 is wrong"),
        (f"{SOURCES}: {{name: list}}}}}}}}", "over", f"{SOURCE}.source.file", "the key is missing"),
        (f"{SOURCES}: {{name: folder}}}}}}}}", "config", f"{SOURCE}.source.imagess", "unknown key"),
        (f"{SOURCES}: {{images: [1]}}}}}}}}", "over", f"{SOURCE}.source.images", r"[1] is wrong"),
        ("ingest: 5", "over", "ingest", "5 is wrong"),
        ("train: {label_sources: [studnt]}", "over", "train.label_sources.0", "no component"),
    ],
)
def test_of_two_files_the_one_that_decides_is_named(
    own: str,
    name: str,
    key: str,
    message: str,
    training: dict[str, Any],
    write_config: WriteConfig,
    tmp_path: Path,
) -> None:
    if name == "config" and "shard_size" in key:
        training["ingest"]["shard_size"] = -1
    elif name == "config":
        training["ingest"]["sources"]["ood"]["source"]["imagess"] = "x"
    write_config(training)
    over = tmp_path / "over.yaml"
    over.write_text(f"extends: config.yaml\n{own}\n")
    assert error_of(over).startswith(f"{tmp_path}/{name}.yaml: {key}: {message}")


def test_the_last_of_several_overrides_is_named(
    training: dict[str, Any], write_config: WriteConfig
) -> None:
    path = write_config(training)
    first, second = "train={model: unett}", "train.perturbation=unimatch"
    found = error_of(path, "train.model=unet", first, second)
    assert found.startswith(f"--set {first}: train.model: no component 'unett'; ")


def test_a_config_says_where_a_value_was_written(
    training: dict[str, Any], write_config: WriteConfig
) -> None:
    path = write_config(training)
    config = load(path, SECTIONS, ["train.steps=3", "cluster.workers=2"])
    assert config.where("train", "variants", "default", "steps") == "--set train.steps=3"
    assert config.where("train", "variants", "default", "batch_size") == f"{path}: train.batch_size"
    where = config.where("train", "variants", "default")
    assert where == f"{path}: train (with --set train.steps=3)"
    assert config.where("ingest", "sources", "ood") == f"{path}: {SOURCE}"
    assert config.where("cluster", "workers") == "--set cluster.workers=2"


BLAMED = {
    "foo.bar=1": "--set foo.bar=1: foo: unknown key; ",
    "propose.size_px=32": "--set propose.size_px=32: propose.model: the key is missing; add it",
    "train.accumulate=3": "{path}: train (with --set train.accumulate=3): these keys are wrong; ",
    "train.feature_discriminator.weight=no": "--set train.feature_discriminator.weight=no: ",
    "vocabulary=none.yaml": "none.yaml: cannot read the file: No such file or directory; "
    "correct --set vocabulary=none.yaml",
    "run='\n'": "--set run='\n': ",
    "cluster.workers=1:30": "--set cluster.workers=1:30: '1:30' is wrong; write a whole ",
    "cluster=" + "[" * 999: f"--set cluster={'[' * 999}: ",
    ".".join(["cluster"] * 999) + "=1": f"--set {'.'.join(['cluster'] * 999)}=1: the key has more ",
    "train.label_sources." + "9" * 5000 + "=1": f"--set train.label_sources.{'9' * 5000}=1: ",
}


@pytest.mark.parametrize("override", BLAMED, ids=lambda override: override[:20])
def test_an_override_is_blamed_for_what_it_did(
    override: str, training: dict[str, Any], write_config: WriteConfig, tmp_path: Path
) -> None:
    path = write_config(training)
    text = BLAMED[override]
    for name, value in (("path", path), ("folder", tmp_path)):
        text = text.replace(f"{{{name}}}", str(value))
    assert error_of(path, override).startswith(text)


def test_a_stage_blames_the_override_too(
    tiny: dict[str, Any], write_config: WriteConfig, call: Callable[..., CompletedProcess[str]]
) -> None:
    path = write_config(tiny)
    images = f"{SOURCE}.source.images=nowhere"
    done = call("run ingest", path, images, code=1)
    assert done.stderr.startswith(
        f"error: --set {images}: {tiny['data']}/nowhere: no such folder; "
    )
    done = call("status", path, f"{SOURCE}.role=val", code=1)
    assert done.stderr.startswith(
        f"error: {path}: {SOURCE}.source (with --set {SOURCE}.role=val): "
    )


def test_all_faults_are_printed(
    training: dict[str, Any], write_config: WriteConfig, call: Callable[..., CompletedProcess[str]]
) -> None:
    training["ingest"]["shard_size"] = 0
    training["ingest"]["sources"]["ood"]["rolle"] = "ood"
    training["train"] |= {"stepss": 3, "crop_px": "wide"}
    done = call("status", path := write_config(training), "cluster.workers=-1", code=1)
    assert [line.partition(";")[0] for line in done.stderr.splitlines()] == [
        f"error: {path}: {SOURCE}.rolle: unknown key",
        f"error: {path}: train.stepss: unknown key",
        "error: --set cluster.workers=-1: -1 is wrong",
        f"error: {path}: ingest.shard_size: 0 is wrong",
        f"error: {path}: train.crop_px: 'wide' is wrong",
    ]


def test_no_words_of_a_library_are_in_an_error() -> None:
    """Each type of every field is described in words of our own."""

    def fields(section: type[Section]) -> Iterator[tuple[str, object, Any]]:
        for name, field in section.model_fields.items():
            yield f"{section.__name__}.{name}", field.annotation, field.metadata
        for own in section.__subclasses__():
            if own.__module__.startswith(("pipeline.", "stages.")):  # not those of other tests
                yield from fields(own)

    for name in SECTIONS:
        importlib.import_module(f"stages.{name}.config")
    described = {place: expected(kind, marks) for place, kind, marks in fields(Section)}
    assert described["VariantConfig.validate_every"] == "a whole number from 1, 'epoch' or null"
    assert described["VariantConfig.scale"] == "a list of 2 items"
    assert described["RunConfig.cluster"] == "a mapping of keys"
    unknown = {place for place, text in described.items() if "another value" in text}
    chosen = {"source", "model", "perturbation", "supervised_loss", "labeler"}
    assert {place.rpartition(".")[2] for place in unknown} <= chosen
