"""Trainings on stored labels whose confidence is calibrated by the report card."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from pipeline.records.part_file import read_facts
from tests.trainings import training_folder

Call = Callable[..., CompletedProcess[str]]


@pytest.fixture
def values(tiny: dict[str, Any]) -> dict[str, Any]:
    """The same training on stored confidences and on calibrated ones."""
    clip = {"name": "dense_clip", "model": "sandbox", "window_px": 32, "stride_px": 32}
    stored = {"name": "stored", "labeler": "clip"}
    train = {
        "model": {"name": "small_unet", "encoder_weights": None},
        "perturbation": "unimatch",
        "crop_px": 32,
        "batch_size": 2,
        "steps": 2,
        "variants": {
            "stored": {"label_sources": [stored]},
            "isotonic": {"label_sources": [{**stored, "confidence": "isotonic"}]},
        },
    }
    pseudolabel = {"size_px": 32, "labelers": {"clip": clip}}
    return {**tiny, "pseudolabel": pseudolabel, "train": train}


@pytest.fixture
def call(call: Call, values: dict[str, Any], write_config: Callable[..., Path]) -> Call:
    """The command line with the config as it is by now: ``call("run")``."""
    return lambda verb, code=0: call(verb, write_config(values), code=code)


def facts(tmp_path: Path, variant: str) -> dict[str, Any]:
    metrics = tmp_path / "workspace/manifests/tiny/metrics"
    found = read_facts(metrics / f"part-train-{variant}-seed-0.parquet")
    assert found is not None
    return found


def test_calibrated_confidences_train_another_network(call: Call, tmp_path: Path) -> None:
    call("run")
    folders = [training_folder(tmp_path / "workspace", name) for name in ("stored", "isotonic")]
    files = [folder / "model.safetensors" for folder in folders]
    stored, isotonic = map(load_file, files)
    assert any(not stored[key].equal(isotonic[key]) for key in stored)
    assert "train: nothing to do, 2 fresh" in call("run").stderr


def test_only_who_reads_the_maps_depends_on_them(call: Call, tmp_path: Path) -> None:
    call("run")
    key = "inputs.calibration of clip"
    assert key in facts(tmp_path, "isotonic")
    assert key not in facts(tmp_path, "stored")


def test_other_maps_train_again(call: Call, data: Path) -> None:
    call("run")
    mask = data / "labeled/masks/0.png"
    turned = 2 - np.array(Image.open(mask))
    Image.fromarray(turned.astype(np.uint8)).save(mask)
    assert "train: calibration of clip changed: isotonic seed 0" in call("run").stderr


def test_too_few_labeled_images_for_maps_are_one_line(call: Call, data: Path) -> None:
    for kind in ("images", "masks"):
        (data / f"labeled/{kind}/1.png").unlink()
    printed = call("run", code=1).stderr.splitlines()[-1]
    assert "fewer than two labeled images to calibrate clip on" in printed
    assert "label more images by hand, or use `confidence: stored`" in printed


def test_maps_of_other_classes_are_one_line(
    call: Call, values: dict[str, Any], maskmill: Call, write_config: Callable[..., Path]
) -> None:
    call("run pseudolabel")
    names = ("background", "disc", "box", "cup")
    classes = [{"name": name, "color": "#000000"} for name in names]
    config = write_config(values, classes=classes)
    result = maskmill("run", "--only", "train", "--config", config)
    assert result.returncode == 1
    assert "the report card of clip is of 3 classes" in result.stderr.splitlines()[-1]


def test_status_before_any_label_says_what_it_waits_for(call: Call) -> None:
    assert "pseudolabel is not fresh" in call("status").stdout
