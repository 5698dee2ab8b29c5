from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.images.images import content_id
from pipeline.images.overlay import resized
from pipeline.records.label_reader import LabelReader, StoredLabel
from stages.labels.confusion import Confusion
from tests.pseudolabel.report_card.cards import card, parts

Call = Callable[..., CompletedProcess[str]]


CLASSES = ("background", "disc", "box")


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
        place = StoredLabel(tmp_path / "workspace" / label["store"], label["row"], (36, 48))
        ((mask, confidence),) = LabelReader().read([place])
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
    printed = call("run").stdout
    found = card(manifests, "truth")
    scores = [found[key] for key in ("miou", "pixel_accuracy", "coverage", "mean_confidence")]
    assert scores == [1, 1, 1, 1]
    assert [card(manifests, "truth", c)["ece"] for c in ("stored", "isotonic")] == [0, 0]
    (line,) = [
        line for line in printed.splitlines() if "truth" in line and line.count("100.0") == 4
    ]
    assert [cell.strip() for cell in line.strip("│").split("│")] == [
        *("truth (copies these files)", "2", "100.0", "100.0", "100.0", "100.0", "0.0"),
        *(f"{100 * card(manifests, 'truth', 'temperature')['ece']:.1f}", "0.0"),
    ]


def test_pseudolabel_ends_with_the_cards(call: Call, manifests: Path) -> None:
    printed = call("run pseudolabel").stdout
    last = printed[printed.index("report card:") :]
    for text in ("ECE", "isotonic", "IoU by class on the labeled images, %", *CLASSES):
        assert text in last
    assert f"{100 * card(manifests, 'clip')['ece']:.1f}" in last
    again = call("run pseudolabel")
    assert "pseudolabel: nothing to do, 6 fresh" in again.stderr
    assert again.stdout == ""
    assert call("results").stdout.endswith(printed)


def test_without_labeled_images_there_is_no_card(
    call: Call, values: dict[str, Any], manifests: Path
) -> None:
    call("run")
    assert len(parts(manifests)) == 2
    del values["ingest"]["sources"]["labeled"]
    values["pseudolabel"]["labelers"].pop("truth")
    call("run")
    assert "no report card: no image is labeled by hand" in call("results").stdout
    printed = call("gc").stdout
    assert "part-truth.parquet" in printed
    assert "part-clip.parquet" in printed
    assert not parts(manifests)


def test_one_labeled_image_is_scored_but_calibrates_nothing(
    call: Call, manifests: Path, data: Path
) -> None:
    for kind in ("images", "masks"):
        (data / f"labeled/{kind}/1.png").unlink()
    printed = call("run").stdout
    assert card(manifests, "clip")["images"] == 1
    assert card(manifests, "clip")["ece"] > 0
    found = card(manifests, "clip", "isotonic")
    assert found["maps"] is None
    assert np.isnan(found["ece"])
    assert [line.split("│")[-2].strip() for line in printed.splitlines() if "│ clip " in line][
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
    printed = call("run").stdout
    found = card(manifests, "clip")
    assert found["images"] == 2
    assert np.isnan([found["miou"], found["coverage"], found["ece"]]).all()
    assert card(manifests, "clip", "isotonic")["maps"] is None
    assert "report card" in printed


def test_an_absent_class_has_no_score_of_its_own(
    call: Call, values: dict[str, Any], manifests: Path, data: Path
) -> None:
    values["pseudolabel"]["labelers"].pop("clip")
    for number in range(2):
        mask = np.array(Image.open(data / f"labeled/masks/{number}.png"))
        Image.fromarray(np.where(mask == 2, 255, mask).astype(np.uint8)).save(
            data / f"labeled/masks/{number}.png"
        )
    printed = call("run").stdout
    found = card(manifests, "truth")
    assert found["class_iou"].tolist() == pytest.approx([1, 1, np.nan], nan_ok=True)
    assert found["miou"] == pytest.approx(2 / 3)
    (line,) = [line for line in printed.splitlines() if "│ box " in line]
    assert line.split("│")[-2].strip() == "-"
