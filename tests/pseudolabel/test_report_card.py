import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.config import config as config_file
from pipeline.console import Console
from pipeline.engine.stage import Context
from pipeline.errors import DataError
from pipeline.images.images import content_id
from pipeline.images.overlay import resized
from pipeline.records.label_reader import LabelReader
from stages.graph import GRAPH
from stages.labels.confusion import Confusion
from stages.pseudolabel.stage import PseudolabelStage

Call = Callable[..., CompletedProcess[str]]

CLASSES = ("background", "disc", "box")


@pytest.fixture
def values(tiny: dict[str, Any], clip_folder: Callable[[str], Path]) -> dict[str, Any]:
    """Two labelers over the two labeled images, and over two web images in a shard of their own."""
    model = f"local-dir:{clip_folder('vit')}"
    clip = {"name": "dense_clip", "model": model, "window_px": 32, "stride_px": 16}
    labelers = {"clip": clip, "truth": "files"}
    return {**tiny, "pseudolabel": {"size_px": 48, "labelers": labelers}}


@pytest.fixture
def call(call: Call, values: dict[str, Any], write_config: Callable[..., Path]) -> Call:
    """The command line with the config as it is by now: ``call("run", "run=other")``."""

    def command(verb: str, *overrides: str, code: int = 0) -> CompletedProcess[str]:
        return call(verb, write_config(values), *overrides, code=code)

    return command


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    return tmp_path / "workspace/manifests/tiny"


def card(manifests: Path, labeler: str, calibration: str = "stored") -> dict[str, Any]:
    rows = pd.read_parquet(manifests / "report_card")
    rows = rows[(rows["labeler"] == labeler) & (rows["calibration"] == calibration)]
    assert len(rows) == 1
    return {str(key): value for key, value in rows.iloc[0].items()}


def parts(manifests: Path) -> dict[str, int]:
    folder = manifests / "report_card"
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*")}


def add_labeled(data: Path, number: int) -> None:
    """Another labeled image: one of those that are there, mirrored."""
    for kind in ("images", "masks"):
        picture = Image.open(data / f"labeled/{kind}/{number % 2}.png")
        turn = Image.Transpose(number // 2 % 4)
        picture.transpose(turn).save(data / f"labeled/{kind}/{number}.png")


def test_a_card_holds_what_the_labels_are_against_the_truth(
    call: Call, manifests: Path, data: Path, tmp_path: Path
) -> None:
    call("run")
    rows = pd.read_parquet(manifests / "pseudo_labels/labeler=clip").to_dict("records")
    labels = {row["image_id"]: row for row in rows}
    confusion, confidences, right = Confusion.empty(3), [], []
    for number in range(2):
        image_id = content_id((data / f"labeled/images/{number}.png").read_bytes())
        label = labels[image_id]
        reader = LabelReader(tmp_path / "workspace" / label["store"])
        ((mask, confidence),) = reader.read([label["row"]], [(36, 48)])
        truth = np.array(Image.open(data / f"labeled/masks/{number}.png"))
        mask, confidence = resized(mask, 24, 32), resized(confidence, 24, 32)
        confusion.add(truth, mask)
        confidences.append(confidence[mask != 255] / 255)
        right.append((truth == mask)[mask != 255])
    found = card(manifests, "clip")
    assert found["images"] == 2
    assert found["miou"] == pytest.approx(confusion.miou)
    assert found["pixel_accuracy"] == pytest.approx(confusion.pixel_accuracy)
    assert found["class_iou"].tolist() == pytest.approx(confusion.iou.tolist())
    assert found["coverage"] == 1
    sure, was_right = np.concatenate(confidences), np.concatenate(right)
    assert found["mean_confidence"] == pytest.approx(sure.mean())
    bins = np.ceil(sure * 15 - 1e-9).clip(1) - 1
    gaps = [abs(was_right[bins == k].mean() - sure[bins == k].mean()) for k in np.unique(bins)]
    shares = [(bins == k).mean() for k in np.unique(bins)]
    assert found["ece"] == pytest.approx(np.dot(gaps, shares))
    assert found["bin_share"].sum() == pytest.approx(1)
    assert found["maps"] is None
    for calibration in ("temperature", "isotonic"):
        maps = np.stack(card(manifests, "clip", calibration)["maps"])
        assert maps.shape == (3, 256)
        assert (np.diff(maps.astype(int)) >= 0).all()


def test_labels_that_are_the_truth_have_a_perfect_card(call: Call, manifests: Path) -> None:
    told = call("run").stdout
    found = card(manifests, "truth")
    scores = [found[key] for key in ("miou", "pixel_accuracy", "coverage", "mean_confidence")]
    assert scores == [1, 1, 1, 1]
    assert [card(manifests, "truth", c)["ece"] for c in ("stored", "isotonic")] == [0, 0]
    (line,) = [line for line in told.splitlines() if "truth" in line and line.count("100.0") == 4]
    assert [cell.strip() for cell in line.strip("│").split("│")] == [
        *("truth", "2", "100.0", "100.0", "100.0", "100.0", "0.0"),
        *(f"{100 * card(manifests, 'truth', 'temperature')['ece']:.1f}", "0.0"),
    ]


def test_pseudolabel_ends_with_the_cards(call: Call, manifests: Path) -> None:
    told = call("run pseudolabel").stdout
    last = told[told.index("report card:") :]
    for text in ("ECE", "isotonic", "IoU by class on the labeled images, %", *CLASSES):
        assert text in last
    assert f"{100 * card(manifests, 'clip')['ece']:.1f}" in last
    again = call("run pseudolabel")
    assert "pseudolabel: nothing to do, 6 fresh" in again.stderr
    assert again.stdout == told


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


def test_without_labeled_images_there_is_no_card(
    call: Call, values: dict[str, Any], manifests: Path
) -> None:
    call("run")
    assert len(parts(manifests)) == 2
    del values["ingest"]["sources"]["labeled"]
    values["pseudolabel"]["labelers"].pop("truth")
    assert "no report card: no image is labeled by hand" in call("run").stdout
    told = call("gc").stdout
    assert "part-truth.parquet" in told
    assert "part-clip.parquet" in told
    assert not parts(manifests)


def test_one_labeled_image_is_judged_but_calibrates_nothing(
    call: Call, manifests: Path, data: Path
) -> None:
    for kind in ("images", "masks"):
        (data / f"labeled/{kind}/1.png").unlink()
    told = call("run").stdout
    assert card(manifests, "clip")["images"] == 1
    assert card(manifests, "clip")["ece"] > 0
    found = card(manifests, "clip", "isotonic")
    assert found["maps"] is None
    assert np.isnan(found["ece"])
    assert [line.split("│")[-2].strip() for line in told.splitlines() if "│ clip " in line][
        -1
    ] == "-"


def test_eight_labeled_images_are_left_out_one_by_one(
    call: Call, manifests: Path, data: Path
) -> None:
    for number in range(2, 8):
        add_labeled(data, number)
    call("run")
    assert card(manifests, "clip")["images"] == 8
    found = card(manifests, "clip", "isotonic")
    assert found["own_map_class_ids"].size > 0
    assert found["bin_share"].sum() == pytest.approx(1)


def test_label_files_of_ignore_alone_score_nothing(call: Call, manifests: Path, data: Path) -> None:
    for number in range(2):
        ignored = np.full((24, 32), 255, np.uint8)
        Image.fromarray(ignored).save(data / f"labeled/masks/{number}.png")
    told = call("run").stdout
    found = card(manifests, "clip")
    assert (found["images"], found["miou"], found["coverage"]) == (2, 0, 0)
    assert np.isnan(found["ece"])
    assert card(manifests, "clip", "isotonic")["maps"] is None
    assert "report card" in told


def test_an_absent_class_has_no_score_of_its_own(
    call: Call, values: dict[str, Any], manifests: Path, data: Path
) -> None:
    values["pseudolabel"]["labelers"].pop("clip")
    for number in range(2):
        mask = np.array(Image.open(data / f"labeled/masks/{number}.png"))
        Image.fromarray(np.where(mask == 2, 255, mask).astype(np.uint8)).save(
            data / f"labeled/masks/{number}.png"
        )
    told = call("run").stdout
    found = card(manifests, "truth")
    assert found["class_iou"].tolist() == pytest.approx([1, 1, np.nan], nan_ok=True)
    assert found["miou"] == pytest.approx(2 / 3)
    (line,) = [line for line in told.splitlines() if "│ box " in line]
    assert line.split("│")[-2].strip() == "-"


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
