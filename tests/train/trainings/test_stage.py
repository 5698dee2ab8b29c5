import errno
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from pipeline.records import part_file
from pipeline.records.part_file import digest, read_facts
from pipeline.records.tables import METRICS
from stages.models.embedded.models import CLIP
from stages.models.segmenters.description import read_description
from tests.trainings import run_folder, training_folder

WriteConfig = Callable[..., Path]


Call = Callable[..., CompletedProcess[str]]


def test_every_variant_leaves_weights_a_checkpoint_and_metrics(
    values: dict[str, Any], write_config: WriteConfig, call: Call
) -> None:
    printed = call("run", write_config(values)).stderr
    assert "train: not done yet: 2 units" in printed
    assert "resumes" not in printed
    metrics = pd.read_parquet(run_folder(values, "manifests") / "metrics")
    assert list(metrics.columns) == METRICS.schema.names
    assert set(metrics["run"]) == {"tiny"}
    assert set(metrics["split"]) == {"train"}
    assert set(metrics["seed"]) == {0}
    plus = metrics[metrics["variant"] == "plus"]
    losses = {"loss/total", "loss/supervised", "loss/student_unlabeled"}
    assert set(plus["name"]) == {*losses, "learning_rate", "labeled/student_unlabeled"}
    assert sorted(plus[plus["name"] == "loss/total"]["step"]) == [1, 2]
    assert (plus["epoch"] == plus["step"]).all()  # 2 crops a step, of 2 unlabeled images
    for name in ("plain", "plus"):
        files = training_folder(Path(values["workspace"]), name)
        assert {path.name for path in files.iterdir()} == {
            "events",
            "facts.json",
            "last.pt",
            "log.jsonl",
            "model.safetensors",
        }
        facts = read_facts(
            run_folder(values, "manifests") / f"metrics/part-train-{name}-seed-0.parquet"
        )
        description = read_description(files / "model.safetensors")
        assert description.training.fingerprint == digest(facts)
        assert description.vocabulary.class_names == ("background", "disc", "box")


def test_only_what_changed_is_trained_again(
    values: dict[str, Any],
    write_config: WriteConfig,
    call: Call,
    reasons: Callable[..., list[str]],
) -> None:
    config = write_config(values)
    call("run", config)
    assert reasons(config) == []
    assert "train: nothing to do, 2 fresh" in call("run", config).stderr
    unimportant = ["title=Plus", "workers=1", "device=cpu", "checkpoint_every=2"]
    assert reasons(config, *(f"train.variants.plus.{key}" for key in unimportant)) == []
    changed = "train.variants.plus.steps 2 -> 3: plus seed 0"
    assert reasons(config, "train.variants.plus.steps=3") == [changed]
    everywhere = [
        f"train.variants.{name}.crop_px 32 -> 48: {name} seed 0" for name in ("plain", "plus")
    ]
    assert reasons(config, "train.crop_px=48") == everywhere
    weights = list(run_folder(values, "artifacts").rglob("model.safetensors"))
    before = {path: path.read_bytes() for path in weights}
    assert changed in call("run", config, "train.variants.plus.steps=3").stderr
    new = set(run_folder(values, "artifacts").rglob("model.safetensors")) - before.keys()
    assert [path.parents[2].name for path in new] == ["plus"]
    assert {path: path.read_bytes() for path in weights} == before


def test_a_variant_is_trained_once_a_seed(
    values: dict[str, Any],
    write_config: WriteConfig,
    call: Call,
    reasons: Callable[..., list[str]],
) -> None:
    """A seed more leaves the others as they are; each begins and draws differently."""
    config = write_config(values)
    call("run", config)
    two = "train.variants.plain.seeds=[0, 7]"
    assert reasons(config, two) == ["not done yet: plain seed 7"]
    assert call("run", config, two).returncode == 0
    assert reasons(config, two) == []
    assert reasons(config, "train.variants.plain.seeds=[7]") == []
    metrics = pd.read_parquet(run_folder(values, "manifests") / "metrics")
    first = metrics[(metrics["name"] == "loss/total") & (metrics["step"] == 1)]
    losses = dict(
        zip(zip(first["variant"], first["seed"], strict=True), first["value"], strict=True)
    )
    assert losses.keys() == {("plain", 0), ("plain", 7), ("plus", 0)}
    assert losses["plain", 0] != losses["plain", 7]


def test_a_frozen_encoder_ends_as_it_was_pretrained(
    values: dict[str, Any], write_config: WriteConfig, call: Call
) -> None:
    model = {"name": "small_unet", "encoder_weights": "sandbox"}
    values["train"] |= {"model": model, "freeze_encoder": True, "precision": "bfloat16"}
    assert call("run", write_config(values)).returncode == 0
    pretrained = load_file(CLIP.weights)
    for name in ("plain", "plus"):
        trained = load_file(training_folder(Path(values["workspace"]), name) / "model.safetensors")
        assert {tensor.dtype for tensor in trained.values()} <= {torch.float32, torch.int64}
        encoder = {key: t for key, t in trained.items() if key.startswith("encoder.")}
        assert encoder
        for key, tensor in encoder.items():
            own = pretrained[key.replace("encoder.", "visual.trunk.", 1)]
            assert torch.equal(tensor, own.to(tensor.dtype)), key


def test_sizes_that_no_crop_has_are_reported_before_and_after_the_training(
    values: dict[str, Any], write_config: WriteConfig, call: Call
) -> None:
    values["train"] |= {"scale": [0.25, 0.5], "variants": {"plain": {"seeds": [0, 1]}}}
    values["evaluate"] = {}
    config = write_config(values)
    printed = call("run train", config, code=0).stderr
    what = "crops show images with long sides of 8 to 16 px, but most are scored at 32 px"
    assert printed.count(f"{config}: train.variants.plain: {what}; fit `scale`, or") == 2
    overrides = ("evaluate.short_side_px=16", "train.scale=[0.5, 0.75]")
    assert "crops show" not in call("run train", config, *overrides, code=0).stderr


def test_a_source_that_never_had_labels_is_reported(
    values: dict[str, Any], write_config: WriteConfig, call: Call
) -> None:
    late = {"name": "previous", "first_epoch": 100}
    values["train"] |= {"validate_every": 2, "variants": {"late": {"label_sources": [late]}}}
    result = call("run train", write_config(values))
    assert result.returncode == 0
    assert "late seed 0: the label source previous_unlabeled never had labels" in result.stderr


def test_a_network_that_needs_several_crops_is_reported_in_a_line(
    values: dict[str, Any], write_config: WriteConfig, call: Call
) -> None:
    model = {"name": "deeplabv3plus", "encoder": "tu-test_resnet", "encoder_weights": None}
    values["train"] |= {"model": model, "batch_size": 1}
    result = call("run train", write_config(values))
    assert result.returncode == 1
    assert "set `batch_size` to at least 2 crops" in result.stderr.splitlines()[-1]


def test_other_images_make_stale_the_variants_that_read_them(
    values: dict[str, Any],
    data: Path,
    write_config: WriteConfig,
    call: Call,
    reasons: Callable[..., list[str]],
) -> None:
    config = write_config(values)
    call("run", config)
    (data / "unlabeled/images/0.png").unlink()
    call("run ingest", config)
    assert reasons(config) == ["unlabeled images changed: plus seed 0"]
    (data / "labeled/images/0.png").unlink()
    (data / "labeled/masks/0.png").unlink()
    call("run ingest", config)
    assert "labeled images changed: 2 units" in reasons(config)


def test_lost_weights_come_back_from_the_checkpoint(
    values: dict[str, Any], write_config: WriteConfig, call: Call
) -> None:
    config = write_config(values)
    call("run", config)
    weights = training_folder(Path(values["workspace"]), "plus") / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    printed = call("run", config).stderr
    assert "is gone: plus seed 0" in printed
    assert "train plus seed 0: resumes after step 2" in printed
    assert weights.read_bytes() == content


def test_a_run_that_dies_before_its_record_leaves_the_former_training_fresh(
    values: dict[str, Any],
    write_config: WriteConfig,
    call: Call,
    reasons: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that dies after the new weights and before their part, then the old config again."""
    values["train"]["variants"] = {"plain": {}}
    config = write_config(values)
    assert call("run", config).returncode == 0
    weights = training_folder(Path(values["workspace"]), "plain") / "model.safetensors"
    content = weights.read_bytes()

    def dies(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "no room", "part")

    with monkeypatch.context() as patched:
        patched.setattr(part_file, "write_part", dies)
        assert call("run", config, "train.steps=3").returncode == 1
    assert reasons(config) == []
    assert weights.read_bytes() == content
