"""Finished work survives gc, verify, dropped images and runs of other keys."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml

from tests.finished_run import not_fresh
from tests.trainings import training_folder

Call = Callable[..., CompletedProcess[str]]
LONGER = "train.steps=2"


def test_gc_keeps_a_finished_training_while_the_config_asks_for_another(
    call: Call, artifacts: Path
) -> None:
    weights = {path: path.read_bytes() for path in artifacts.rglob("model.safetensors")}
    call("gc", LONGER)
    assert {path: path.read_bytes() for path in artifacts.rglob("model.safetensors")} == weights
    assert not_fresh() == {}


def test_verify_keeps_the_checkpoint_of_an_unfinished_training_of_other_keys(
    call: Call, run_folder: Path, manifests: Path, artifacts: Path
) -> None:
    first = training_folder(run_folder / "workspace", "web")
    call("run train", LONGER, "train.checkpoint_every=1")
    (other,) = {*first.parent.iterdir()} - {first}
    call("run train")
    (other / "model.safetensors").unlink()
    part = manifests / "metrics/part-train-web-seed-0.parquet"
    part.write_bytes(part.read_bytes()[:-9])
    result = call("verify --rerun", LONGER)
    assert "train web seed 0: resumes after step 2" in result.stderr


def test_scores_of_images_that_are_gone_for_a_while_are_kept(call: Call) -> None:
    call("run evaluate", "ingest.sources.test.role=unlabeled")
    result = call("run evaluate")
    assert "evaluate: nothing to do" in result.stderr


def test_one_stage_on_its_own_warns_of_needs_that_wait_among_the_kept(call: Call) -> None:
    call("run evaluate", LONGER)
    result = call("run --only evaluate")
    assert "train is not fresh; evaluate uses its present output" in result.stderr


def test_the_picture_of_predictions_shows_the_labels_by_their_scheme(
    call: Call, run_folder: Path, artifacts: Path, values: dict[str, Any]
) -> None:
    path = run_folder / values["vocabulary"]
    vocabulary = yaml.safe_load(path.read_text())
    schemes = {
        "as it is": {0: "background", 1: "disc", 2: "box"},
        "swapped": {0: "background", 1: "box", 2: "disc"},
    }
    path.write_text(yaml.safe_dump({**vocabulary, "label_schemes": schemes}))
    picture = artifacts / "report/predictions-test.png"
    call("run", "ingest.sources.test.label_scheme=as it is")
    before = picture.read_bytes()
    vocabulary["label_schemes"] = {**schemes, "as it is": schemes["swapped"]}
    path.write_text(yaml.safe_dump(vocabulary))
    call("run", "ingest.sources.test.label_scheme=as it is")
    assert picture.read_bytes() != before


def test_damaged_kept_work_is_done_again(
    call: Call, outcome: Call, run_folder: Path, manifests: Path
) -> None:
    folder = training_folder(run_folder / "workspace", "web")
    weights = (folder / "model.safetensors").read_bytes()
    call("run train", LONGER)
    (part,) = (manifests / ".kept/metrics").glob("part-train-plain-*")
    part.write_bytes(part.read_bytes()[:300])
    assert not_fresh()["train"] == ["plain seed 0"]
    damaged = bytearray(weights)
    damaged[-1] ^= 1
    (folder / "model.safetensors").write_bytes(damaged)
    found = outcome("verify")
    assert found.returncode == 1
    assert "train: web seed 0: " in found.stdout
    call("verify --rerun")
    assert (folder / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize("state", ["whole", "damaged", "gone"])
def test_damaged_weights_are_restored_from_the_checkpoint_without_training(
    call: Call, run_folder: Path, state: str
) -> None:
    first = training_folder(run_folder / "workspace", "web")
    call("run train", LONGER, "train.checkpoint_every=1")
    (folder,) = {*first.parent.iterdir()} - {first}
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    last = folder / "last.pt"
    if state == "damaged":
        last.write_bytes(last.read_bytes()[:-100])
    elif state == "gone":
        last.unlink()
    result = call("verify --rerun", LONGER)
    assert (folder / "model.safetensors").read_bytes() == weights
    assert ("resumes after step 2" in result.stderr) is (state == "whole")


def test_kept_scores_are_whole_while_others_are_in_their_places(call: Call) -> None:
    call("run evaluate", "evaluate.flip=true")
    assert "no damage" in call("verify").stdout
    assert "no damage" in call("verify", "evaluate.flip=true").stdout


def test_weights_of_another_training_are_not_scored(
    call: Call, outcome: Call, run_folder: Path
) -> None:
    files = [training_folder(run_folder / "workspace", name) for name in ("plain", "web")]
    plain, web = (folder / "model.safetensors" for folder in files)
    content = plain.read_bytes()
    plain.write_bytes(web.read_bytes())
    web.write_bytes(content)
    result = outcome("run evaluate", "evaluate.flip=true")
    assert result.returncode == 1
    assert "these are not the weights that the training wrote; restore them with" in result.stderr
