"""Trainings that read stored labels."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pandas as pd
import pytest

from tests.trainings import run_folder

WriteConfig = Callable[..., Path]


Call = Callable[..., CompletedProcess[str]]


def test_epochs_count_full_batches_of_the_images_that_are_learned_from(
    labeling: dict[str, Any], write_config: WriteConfig, call: Call
) -> None:
    labeling["train"] = {**labeling["train"], "steps": None, "epochs": 2, "batch_size": 1}
    labeling["train"]["variants"]["large"] = {"batch_size": 3}
    labeling["train"]["variants"]["both"] = {"batch_size": 2, "label_sources": ["student"]}
    assert call("run train", write_config(labeling)).returncode == 0
    metrics = pd.read_parquet(run_folder(labeling, "manifests") / "metrics")
    rates = metrics[metrics["name"] == "learning_rate"].groupby("variant")
    assert rates["step"].max().to_dict() == {"plain": 4, "ood": 4, "large": 2, "both": 2}
    assert rates["epoch"].max().to_dict() == {"plain": 2, "ood": 2, "large": 2, "both": 2}


def test_a_labelers_key_concerns_only_the_variants_that_read_its_labels(
    labeling: dict[str, Any],
    write_config: WriteConfig,
    call: Call,
    reasons: Callable[..., list[str]],
) -> None:
    config = write_config(labeling)
    assert call("run", config).returncode == 0
    metrics = pd.read_parquet(run_folder(labeling, "manifests") / "metrics")
    ood = metrics[(metrics["variant"] == "ood") & (metrics["step"] == 2)]
    assert {"loss/supervised", "loss/stored_ood_clip"} < set(ood["name"])
    assert reasons(config) == []
    threshold = "pseudolabel.labelers.clip.threshold=0.5"
    assert call("run pseudolabel", config, threshold).returncode == 0
    assert reasons(config, threshold) == ["ood labels of clip changed: ood seed 0"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("labeler=sam", "no labeler 'sam'; use one of `pseudolabel.labelers`: clip"),
        (
            "on=unlabeled",
            "clip does not label unlabeled images; add unlabeled to `pseudolabel.roles`",
        ),
    ],
)
def test_labels_that_nobody_makes_are_refused_before_any_work(
    labeling: dict[str, Any], write_config: WriteConfig, call: Call, override: str, message: str
) -> None:
    config = write_config(labeling)
    result = call("run", config, f"train.variants.ood.label_sources.0.{override}")
    assert result.returncode == 1
    place = "train.variants.ood.label_sources"
    where = f"{config}: {place} (with --set {place}.0.{override})"
    assert result.stderr == f"error: {where}: {message}\n"
    assert not list(run_folder(labeling, "manifests").rglob("*.parquet"))


@pytest.mark.parametrize(("role", "other"), [("labeled", "val"), ("ood", "unlabeled")])
def test_a_role_without_images_is_one_line(
    labeling: dict[str, Any], write_config: WriteConfig, call: Call, role: str, other: str
) -> None:
    config = write_config(labeling)
    result = call("run", config, f"ingest.sources.{role}.role={other}")
    assert result.returncode == 1
    fix = f"add a source with `role: {role}` whose images are readable"
    where = f"ingest.sources (with --set ingest.sources.{role}.role={other})"
    message = f"error: {config}: {where}: no {role} image; {fix}"
    assert result.stderr.splitlines()[-1] == message
    assert "Traceback" not in result.stderr


def test_labels_that_are_not_made_yet_are_missed_before_any_training(
    labeling: dict[str, Any], write_config: WriteConfig, call: Call
) -> None:
    config = write_config(labeling)
    assert call("run ingest", config).returncode == 0
    done = call("run --only train", config)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert "no ood image has labels of clip; run `maskmill run pseudolabel`" in last
    assert not list(run_folder(labeling, "artifacts").rglob("last.pt"))
