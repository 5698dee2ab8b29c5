"""Validation during training."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pandas as pd
import pytest
import yaml
from PIL import Image

from tests.pipeline import killing
from tests.trainings import run_folder, training_folder

WriteConfig = Callable[..., Path]


Call = Callable[..., CompletedProcess[str]]


def test_validation_while_training_keeps_the_best_weights(
    values: dict[str, Any],
    write_config: WriteConfig,
    call: Call,
    reasons: Callable[..., list[str]],
) -> None:
    values["train"] |= {"steps": 5, "variants": {"plus": {"label_sources": ["student"]}}}
    values["evaluate"] = {}
    config = write_config(values)
    assert call("run train", config).returncode == 0
    checkpoints = run_folder(values, "artifacts") / "checkpoints"
    assert not [*checkpoints.rglob("best.safetensors")]
    every = "train.validate_every=2"
    assert any("validate_every" in reason for reason in reasons(config, every))
    assert call("run train evaluate", config, every).returncode == 0
    metrics = pd.read_parquet(run_folder(values, "manifests") / "metrics")
    val = metrics[(metrics["split"] == "val") & (metrics["name"] == "miou")]
    trained = val[val["epoch"].notna()]
    assert trained["step"].tolist() == [2, 4, 5]
    evaluated = metrics[metrics["epoch"].isna() & (metrics["split"] == "val")]
    scores = evaluated.set_index("name")
    assert scores["value"]["miou"] == trained["value"].iloc[-1]
    assert scores["value"]["best/miou"] == trained["value"].max()
    best = trained.sort_values("value", kind="stable")["step"].iloc[-1]
    assert scores["step"]["best/miou"] == best
    assert {"best/iou/disc", "best/pixel_accuracy"} <= set(scores.index)
    assert reasons(config, every) == []
    (best_weights,) = checkpoints.rglob("best.safetensors")
    best_weights.unlink()
    assert "is gone: plus seed 0" in reasons(config, every)[0]
    assert reasons(config) == []  # the training without validation is still there


@pytest.mark.slow
def test_a_stopped_experiment_leaves_the_best_weights_of_the_finished_training(
    values: dict[str, Any], write_config: WriteConfig, call: Call, tmp_path: Path
) -> None:
    values["train"] |= {"validate_every": 1, "variants": {"plus": {"label_sources": ["student"]}}}
    values["evaluate"] = {}
    config = write_config(values)
    assert call("run", config).returncode == 0
    finished = training_folder(Path(values["workspace"]), "plus")
    content = {path: path.read_bytes() for path in finished.glob("*.safetensors")}
    scores = pd.read_parquet(run_folder(values, "manifests") / "metrics")
    experiment = tmp_path / "experiment.yaml"
    values["train"] |= {"learning_rate": 0.2, "steps": 4000, "checkpoint_every": 1000}
    experiment.write_text(yaml.safe_dump(values))
    assert killing.run(experiment, kill_at=40).code == -9
    others = {*finished.parent.iterdir()} - {finished}
    assert [(other / "best.safetensors").exists() for other in others] == [True]
    assert {path: path.read_bytes() for path in finished.glob("*.safetensors")} == content
    assert "evaluate: nothing to do" in call("run evaluate", config).stderr
    assert call("run evaluate --force", config).returncode == 0
    again = pd.read_parquet(run_folder(values, "manifests") / "metrics")
    pd.testing.assert_frame_equal(again, scores)


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"torn")])
def test_lost_best_weights_come_back_from_the_checkpoint(
    values: dict[str, Any],
    write_config: WriteConfig,
    call: Call,
    damage: Callable[[Path], object],
) -> None:
    values["train"] |= {"validate_every": 2, "checkpoint_every": 4, "steps": 4}
    config = write_config(values)
    assert call("run train", config).returncode == 0
    best = training_folder(Path(values["workspace"]), "plus") / "best.safetensors"
    content = best.read_bytes()
    damage(best)
    assert call("verify --rerun", config).returncode == 0
    assert call("run train", config).returncode == 0
    assert best.read_bytes() == content
    assert "nothing to do" in call("run train", config).stderr


def test_validation_needs_a_pixel_with_a_class(
    values: dict[str, Any], data: Path, write_config: WriteConfig, call: Call
) -> None:
    for path in (data / "val/masks").iterdir():
        with Image.open(path) as mask:
            blank = Image.new("L", mask.size, 255)
        blank.save(path)
    values["train"]["validate_every"] = 2
    result = call("run train", write_config(values))
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert "ingest.sources.val: val: 1 of 1 label files hold only 255; 255 is ignore" in last


def test_validation_needs_images_to_score_on(
    values: dict[str, Any], write_config: WriteConfig, call: Call
) -> None:
    values["train"]["validate_every"] = "epoch"
    result = call("run", write_config(values), "ingest.sources.val.role=test")
    assert result.returncode == 1
    assert "no val image; add a source with `role: val`" in result.stderr.splitlines()[-1]
