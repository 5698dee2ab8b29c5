"""Trainings whose labels lie in several stores: some shards have other labels than others."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.conftest import VOCABULARY
from tests.trainings import run_folder

Call = Callable[..., CompletedProcess[str]]
WriteConfig = Callable[..., Path]
RENAMED = [{**entry, "name": entry["name"].upper()} for entry in VOCABULARY["classes"]]


@pytest.fixture
def labeling(values: dict[str, Any], data: Path) -> dict[str, Any]:
    """Label files of 8 web images in two shards; the grey of an image is not the class it has."""
    for kind in ("images", "masks"):
        (data / "ood" / kind).mkdir(exist_ok=True)
    for number in range(8):
        pixels = np.full((32, 32, 3), number, np.uint8)
        Image.fromarray(pixels).save(data / f"ood/images/{number}.png")
        Image.fromarray(np.full((32, 32), number % 3, np.uint8)).save(
            data / f"ood/masks/{number}.png"
        )
    web = values["ingest"]["sources"]["ood"]
    web["source"]["masks"] = "ood/masks"
    values["pseudolabel"] = {"size_px": 32, "labelers": {"truth": "files"}}
    stored = {"name": "stored", "labeler": "truth", "confidence": "one"}
    values["train"] |= {"steps": 6, "batch_size": 4, "scale": [1.0, 1.0]}
    values["train"]["variants"] = {"ood": {"label_sources": [stored]}}
    return values


def test_each_label_comes_from_its_own_store(
    labeling: dict[str, Any], write_config: WriteConfig, call: Call
) -> None:
    """After a class is renamed, one shard is labeled again, into a new store."""
    assert call("run pseudolabel", write_config(labeling)).returncode == 0
    config = write_config(labeling, background="BACKGROUND", classes=RENAMED)
    manifests = run_folder(labeling, "manifests")
    images = pd.read_parquet(manifests / "images")
    shard = images[images["role"] == "ood"]["shard"].max()
    assert call(f"run pseudolabel --shards {shard}", config).returncode == 0
    labels = pd.read_parquet(manifests / "pseudo_labels")
    assert labels["store"].nunique() == 2
    done = call("run --only train", config)
    assert done.returncode == 0
    assert "warning: pseudolabel is not fresh; train uses its present output" in done.stderr
    metrics = pd.read_parquet(manifests / "metrics")
    shares = metrics[metrics["name"] == "labeled/stored_ood_truth"]
    assert (shares["value"] == 1).all()
    assert sorted(shares["step"]) == [1, 2, 3, 4, 5, 6]
    assert call("run pseudolabel", config).returncode == 0
    changed = call("status", config).stdout
    assert "train: ood labels of truth changed: ood seed 0" in changed


def test_an_image_is_not_trained_on_with_the_label_of_its_former_file(
    labeling: dict[str, Any], write_config: WriteConfig, call: Call, data: Path
) -> None:
    config = write_config(labeling)
    assert call("run pseudolabel", config).returncode == 0
    Image.new("RGB", (32, 32), "white").save(data / "ood/images/3.png")
    assert call("run ingest", config).returncode == 0
    labeling["train"] |= {"steps": None, "epochs": 1, "batch_size": 1}
    assert call("run --only train", write_config(labeling)).returncode == 0
    metrics = pd.read_parquet(run_folder(labeling, "manifests") / "metrics")
    assert metrics["step"].max() == 7  # of the eight images
