"""Report cards that are stale, damaged or interrupted."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.config import config as config_file
from pipeline.console import Console
from pipeline.engine.stage import Context
from pipeline.errors import DataError
from stages.graph import GRAPH
from stages.pseudolabel.stage import PseudolabelStage
from tests.pseudolabel.report_card.cards import card, parts

Call = Callable[..., CompletedProcess[str]]


def test_a_changed_label_file_judges_anew_and_labels_nothing_anew(
    call: Call, manifests: Path, data: Path
) -> None:
    call("run")
    labels = {p: p.stat().st_mtime_ns for p in (manifests / "pseudo_labels/labeler=clip").iterdir()}
    before = card(manifests, "clip")
    mask = data / "labeled/masks/0.png"
    Image.fromarray(np.zeros((24, 32), np.uint8)).save(mask)
    told = call("run").stderr
    assert "pseudolabel: labeled images changed: 2 units" in told
    assert {p: p.stat().st_mtime_ns for p in labels} == labels
    assert card(manifests, "clip")["pixel_accuracy"] != before["pixel_accuracy"]


def test_other_labels_are_judged_anew_and_the_shards_are_told_as_before(
    call: Call, manifests: Path
) -> None:
    call("run")
    before = parts(manifests)
    told = call("run", "pseudolabel.labelers.clip.threshold=0.5").stderr
    assert "pseudolabel.labelers.clip.threshold 0.0 -> 0.5: shards 0, 1" in told
    assert "pseudolabel: labels changed: clip report card" in told
    changed = {name for name, time in parts(manifests).items() if before[name] != time}
    assert changed == {"part-clip.parquet"}


def test_a_web_image_changes_no_card(call: Call, manifests: Path, data: Path) -> None:
    call("run")
    before = parts(manifests)
    Image.new("RGB", (32, 24)).save(data / "ood/images/0.png")
    assert "pseudolabel: 2 images changed: 2 units" not in (told := call("run").stderr)
    assert "pseudolabel: " in told
    assert parts(manifests) == before


def test_a_card_is_the_same_after_a_resumed_run(call: Call, manifests: Path) -> None:
    call("run")
    whole = {c: card(manifests, "clip", c) for c in ("stored", "temperature", "isotonic")}
    shutil.rmtree(manifests / "report_card")
    told = call("run pseudolabel --shards 1")
    assert "no report card of clip yet: it comes when all shards are done" in told.stdout
    assert "not done yet" in call("run").stderr
    for calibration, expected in whole.items():
        assert repr(card(manifests, "clip", calibration)) == repr(expected)


def read_stage(config: Path) -> PseudolabelStage:
    """The stage of a config, to be planned at one time and run at another."""
    loaded = config_file.load(config, {stage.name: stage.Config for stage in GRAPH})
    return PseudolabelStage(loaded.sections["pseudolabel"], Context(loaded, Console()))


def test_a_label_file_that_vanishes_meanwhile_keeps_the_labels(
    call: Call, values: dict[str, Any], write_config: Callable[..., Path], data: Path
) -> None:
    values["pseudolabel"]["labelers"].pop("truth")
    call("run ingest")
    stage = read_stage(write_config(values))
    units = stage.plan()
    mask = data / "labeled/masks/1.png"
    content = mask.read_bytes()
    mask.unlink()
    with pytest.raises(DataError, match=str(mask)):
        stage.run(units)
    mask.write_bytes(content)
    assert "not done yet: clip report card" in call("run").stderr


def test_an_image_without_a_label_is_judged_another_time(
    call: Call,
    values: dict[str, Any],
    write_config: Callable[..., Path],
    data: Path,
    manifests: Path,
) -> None:
    values["pseudolabel"]["labelers"].pop("truth")
    call("run ingest")
    stage = read_stage(write_config(values))
    units = stage.plan()
    image = data / "labeled/images/1.png"
    content = image.read_bytes()
    image.unlink()
    stage.run(units)
    assert card(manifests, "clip")["images"] == 1
    image.write_bytes(content)
    assert "2 images could not be read: shard 0 and clip report card" in call("run").stderr
    assert card(manifests, "clip")["images"] == 2


def test_verify_finds_a_damaged_card_and_mends_it(call: Call, manifests: Path) -> None:
    call("run")
    before = card(manifests, "clip")
    part = manifests / "report_card/part-clip.parquet"
    part.write_bytes(part.read_bytes()[:-9])
    assert "clip report card" in call("verify", code=1).stdout
    call("verify --rerun")
    assert repr(card(manifests, "clip")) == repr(before)


def test_status_names_the_cards(call: Call) -> None:
    state = {s["name"]: s for s in json.loads(call("status --json").stdout)["stages"]}
    assert state["pseudolabel"]["state"] == "missing"
    call("run")
    state = {s["name"]: s for s in json.loads(call("status --json").stdout)["stages"]}
    assert state["pseudolabel"]["shards"] == {"fresh": 6, "stale": 0, "missing": 0}
