import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pandas as pd
import pytest
from safetensors import safe_open

from pipeline.manifest import METRICS, digest, read_facts

Maskmill = Callable[..., CompletedProcess[str]]
WriteConfig = Callable[..., Path]

STORED = {"name": "stored", "labeler": "clip"}


@pytest.fixture
def values(tiny: dict[str, Any]) -> dict[str, Any]:
    """Two variants that need no labeler."""
    train = {
        "model": {"name": "small_unet", "encoder_weights": None},
        "perturbation": "unimatch",
        "crop_px": 32,
        "batch_size": 2,
        "steps": 2,
        "log_every": 1,
        "variants": {"plain": {}, "plus": {"label_sources": [{"name": "student"}]}},
    }
    return {**tiny, "train": train}


@pytest.fixture
def labeling(values: dict[str, Any]) -> dict[str, Any]:
    """The same, and a variant that learns from stored labels."""
    clip = {"name": "dense_clip", "model": "sandbox", "window_px": 32, "stride_px": 32}
    values = deepcopy(values)
    values["pseudolabel"] = {"size_px": 32, "labelers": {"clip": clip}}
    values["train"]["variants"]["ood"] = {"label_sources": [STORED]}
    return values


@pytest.fixture
def run(maskmill: Maskmill) -> Callable[..., str]:
    """Runs up to train; gives what was told on stderr."""

    def call(config: Path, *overrides: str, stage: str = "train") -> str:
        sets = [part for override in overrides for part in ("--set", override)]
        result = maskmill("run", stage, "--config", config, *sets)
        assert result.returncode == 0, result.stderr
        return result.stderr

    return call


@pytest.fixture
def unfinished(maskmill: Maskmill) -> Callable[..., list[str]]:
    """Reasons why train is not fresh, after overrides."""

    def call(config: Path, *overrides: str) -> list[str]:
        sets = [part for override in overrides for part in ("--set", override)]
        result = maskmill("status", "--json", "--config", config, *sets)
        assert result.returncode == 0, result.stderr
        stages = {stage["name"]: stage for stage in json.loads(result.stdout)["stages"]}
        reasons: list[str] = stages["train"]["reasons"]
        assert (stages["train"]["state"] == "fresh") == (not reasons)
        return reasons

    return call


def folder(values: dict[str, Any], kind: str) -> Path:
    return Path(values["workspace"]) / kind / "tiny"


def test_every_variant_leaves_weights_a_checkpoint_and_metrics(
    values: dict[str, Any], write_config: WriteConfig, run: Callable[..., str]
) -> None:
    told = run(write_config(values))
    assert "train: not done yet: 2 units" in told
    assert "resumes" not in told
    metrics = pd.read_parquet(folder(values, "manifests") / "metrics")
    assert list(metrics.columns) == METRICS.schema.names
    assert set(metrics["run"]) == {"tiny"}
    assert set(metrics["split"]) == {"train"}
    plus = metrics[metrics["variant"] == "plus"]
    losses = {"loss/total", "loss/supervised", "loss/student_unlabeled", "learning_rate"}
    assert set(plus["name"]) == losses
    assert sorted(plus[plus["name"] == "loss/total"]["step"]) == [1, 2]
    assert (plus["epoch"] == plus["step"]).all()  # 2 crops a step of 2 unlabeled images
    assert (plus["value"] > 0).any()
    for name in ("plain", "plus"):
        checkpoints = folder(values, "artifacts") / "checkpoints" / name
        assert sorted(path.name for path in checkpoints.iterdir()) == ["log.jsonl", "model.safetensors"]
        facts = read_facts(folder(values, "manifests") / f"metrics/part-train-{name}.parquet")
        with safe_open(checkpoints / "model.safetensors", "pt") as weights:
            assert weights.metadata() == {"fingerprint": digest(facts)}
