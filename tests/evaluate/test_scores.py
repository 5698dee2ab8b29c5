"""Scores against counts made here from weights, stored labels and label files."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from pipeline.config.class_entry import ClassEntry
from pipeline.config.vocabulary import Vocabulary
from pipeline.images.images import content_id
from pipeline.records.label_reader import LabelReader, StoredLabel
from stages.evaluate.score_key import ScoreKey
from stages.evaluate.scores import Scores
from stages.labels.boundary import BoundaryCounts
from stages.models.segmenters.builders.small_unet import SmallUNetConfig, SmallUNetModel
from stages.models.segmenters.normalization import normalize
from stages.models.segmenters.predictor import Predictor
from stages.models.segmenters.protocol import Protocol
from tests.evaluate.reading import matrix_of, scores_of
from tests.finished_run import CLASSES

Call = Callable[..., CompletedProcess[str]]
Write = Callable[..., Path]
Bytes = npt.NDArray[np.uint8]
SHAPES = Vocabulary(
    name="shapes", classes=tuple(ClassEntry(name=name, color="#000000") for name in CLASSES)
)


def pixels_of(path: Path) -> Bytes:
    return np.array(Image.open(path))


def trained(artifacts: Path, variant: str, file: str = "model.safetensors") -> Any:
    """The network of a variant's only training that has this file."""
    network = SmallUNetModel(SmallUNetConfig(encoder_weights=None)).build(SHAPES).eval()
    (weights,) = (artifacts / "checkpoints" / variant / "seed-0").glob(f"*/{file}")
    network.load_state_dict(load_file(weights))
    return network


def predicted_whole(network: Any, pixels: Bytes) -> Bytes:
    """(H, W) uint8 classes of one pass at the image's own size."""
    with torch.inference_mode():
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        classes: Bytes = network(normalize(image)).argmax(1)[0].numpy().astype(np.uint8)
    return classes


def counted(pairs: list[tuple[Bytes, Bytes]]) -> npt.NDArray[np.int64]:
    """Counts (truth, prediction) pixel by pixel."""
    matrix = np.zeros((len(CLASSES), len(CLASSES) + 1), np.int64)
    for truth, predicted in pairs:
        for true_id, predicted_id in zip(truth.flat, predicted.flat, strict=True):
            if true_id != 255:
                matrix[true_id, -1 if predicted_id == 255 else predicted_id] += 1
    return matrix


def pixel_scores(pairs: list[tuple[Bytes, Bytes]]) -> dict[str, float]:
    """Scores from the counts of pixels; no IoU of a class that occurs nowhere."""
    matrix = counted(pairs)
    right = [int(matrix[i, i]) for i in range(len(CLASSES))]
    union = [int(matrix[i].sum() + matrix[:, i].sum()) - right[i] for i in range(len(CLASSES))]
    ious = {f"iou/{name}": right[i] / union[i] for i, name in enumerate(CLASSES) if union[i]}
    means = {"miou": sum(ious.values()) / len(CLASSES), "nan_miou": sum(ious.values()) / len(ious)}
    return {**ious, **means, "pixel_accuracy": sum(right) / int(matrix.sum())}


def all_scores(pairs: list[tuple[Bytes, Bytes]]) -> dict[str, float]:
    """The same, and scores of the pixels near outlines; every class must occur there."""
    boundaries = BoundaryCounts.empty(len(CLASSES))
    for truth, predicted in pairs:
        boundaries.add(truth, predicted)
    ious = zip(CLASSES, boundaries.iou, strict=True)
    named = {f"boundary_iou/{name}": float(iou) for name, iou in ious}
    return {**pixel_scores(pairs), **named, "boundary_miou": boundaries.miou}


@pytest.mark.parametrize("variant", ["plain", "web"])
@pytest.mark.parametrize("split", ["val", "test"])
def test_a_training_is_scored(
    variant: str, split: str, data: Path, manifests: Path, artifacts: Path
) -> None:
    network = trained(artifacts, variant)
    predicted = predicted_whole(network, pixels_of(data / split / "images/0.png"))
    pairs = [(pixels_of(data / split / "masks/0.png"), predicted)]
    assert scores_of(manifests, variant, split) == pytest.approx(all_scores(pairs))
    assert np.array_equal(matrix_of(manifests, variant, split), counted(pairs))
    rows = pd.read_parquet(manifests / "confusion")
    assert set(rows["step"].dropna()) == {1}


@pytest.fixture
def labels(run_folder: Path, manifests: Path, data: Path) -> Callable[[str], Any]:
    """(truth, stored mask) of the images of a role that have a label file."""

    def read(role: str) -> Iterator[tuple[Bytes, Bytes]]:
        rows = pd.read_parquet(manifests / "pseudo_labels").set_index("image_id")
        for truth in sorted((data / role / "masks").iterdir()):
            image = data / role / "images" / truth.name
            (label,) = rows.loc[[content_id(image.read_bytes())]].to_dict("records")
            place = StoredLabel(run_folder / "workspace" / label["store"], label["row"], (24, 32))
            ((mask, _),) = LabelReader().read([place])
            yield pixels_of(truth), mask

    return lambda role: [*read(role)]


def test_a_labeler_is_scored_on_test_and_on_labeled_images_by_its_report_card(
    manifests: Path, labels: Callable[[str], Any]
) -> None:
    on_test = labels("test")
    assert scores_of(manifests, "clip", "test", None) == pytest.approx(all_scores(on_test))
    assert np.array_equal(matrix_of(manifests, "clip", "test", None), counted(on_test))
    card, on_labeled = pd.read_parquet(manifests / "report_card").iloc[0], labels("labeled")
    scores = pixel_scores(on_labeled)
    assert len(on_labeled) == card["images"] == 2
    assert card["miou"] == pytest.approx(scores["miou"])
    assert card["pixel_accuracy"] == pytest.approx(scores["pixel_accuracy"])
    metrics = pd.read_parquet(manifests / "metrics")
    assert set(metrics[metrics["variant"] == "clip"]["split"]) == {"test"}


def test_a_labeler_is_scored_on_every_role_that_has_label_files(
    values: dict[str, Any],
    write: Write,
    call: Call,
    data: Path,
    manifests: Path,
    labels: Callable[[str], Any],
) -> None:
    values["pseudolabel"]["roles"] = ["ood", "unlabeled", "test"]  # unlabeled: no files
    values["ingest"]["sources"]["ood"]["source"]["masks"] = "ood/masks"
    (data / "ood/masks").mkdir()
    for number in (0, 1):
        truth = np.full((24, 32), number + 1, np.uint8)
        Image.fromarray(truth).save(data / f"ood/masks/{number}.png")
    write(values)
    result = call("run")
    for role in ("ood", "test"):
        scores = pixel_scores(labels(role))
        found = scores_of(manifests, "clip", role, None)
        assert {name: found[name] for name in scores} == pytest.approx(scores)
        assert np.array_equal(matrix_of(manifests, "clip", role, None), counted(labels(role)))
    assert "labelers against the label files of the images they labeled" in result.stdout


def test_every_seed_is_scored_and_shown_with_the_others(
    values: dict[str, Any], write: Write, call: Call, manifests: Path
) -> None:
    values["train"]["seeds"] = [0, 4]
    write(values)
    result = call("run evaluate")
    each = [100 * (scores_of(manifests, "plain", "test", seed)["miou"] or 0) for seed in (0, 4)]
    assert each[0] != each[1]
    assert f"{np.mean(each):.1f} ± {np.std(each, ddof=1):.1f}" in result.stdout
    assert "evaluate: not done yet: 4 units" in result.stderr  # seed 0 stays


def test_another_protocol_scores_trainings_again_and_nothing_else(
    values: dict[str, Any],
    write: Write,
    call: Call,
    data: Path,
    manifests: Path,
    artifacts: Path,
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (manifests / "metrics").iterdir()}
    labeler = matrix_of(manifests, "clip", "test", None)
    protocol = {
        "sliding_window": {"side_px": 16, "stride_px": 12, "mode": "snap", "average": "logits"},
        "short_side_px": 20,
        "flip": True,
        "scales": [1.0, 1.5],
    }
    values["evaluate"] = protocol
    write(values)
    assert "evaluate: evaluate.flip false -> true: 4 units" in call("run").stderr
    changed = {path.name for path, time in before.items() if path.stat().st_mtime_ns != time}
    names = {f"{name}-seed-0-{split}" for name in ("plain", "web") for split in ("val", "test")}
    assert changed == {f"part-score-training-{name}.parquet" for name in names}
    assert np.array_equal(matrix_of(manifests, "clip", "test", None), labeler)
    network = trained(artifacts, "web")
    predictor = Predictor(network, torch.device("cpu"), Protocol.model_validate(protocol))
    predicted = predictor.predict(pixels_of(data / "test/images/0.png"))
    counts = counted([(pixels_of(data / "test/masks/0.png"), predicted)])
    assert np.array_equal(matrix_of(manifests, "web", "test"), counts)


def test_weights_that_were_best_on_val_are_scored_next_to_the_last(
    values: dict[str, Any],
    write: Write,
    call: Call,
    data: Path,
    manifests: Path,
    artifacts: Path,
) -> None:
    values["train"] |= {"validate_every": 1, "steps": 3, "learning_rate": 0.05}
    values["train"]["variants"] = {"plain": {}}
    write(values)
    shutil.rmtree(artifacts / "checkpoints/plain")
    result = call("run evaluate")
    log: Any = pd.read_parquet(manifests / "metrics/part-train-plain-seed-0.parquet")
    log = log[(log["split"] == "val") & (log["name"] == "miou")].sort_values("step")
    rows = pd.read_parquet(manifests / "metrics")
    rows = rows[rows["epoch"].isna()]
    best_step = int(log.loc[log["value"].idxmax(), "step"])
    assert set(rows[rows["name"].str.startswith("best/")]["step"]) == {best_step}
    for split in ("val", "test"):
        truth = pixels_of(data / split / "masks/0.png")
        image = pixels_of(data / split / "images/0.png")
        best_network = trained(artifacts, "plain", "best.safetensors")
        best = pixel_scores([(truth, predicted_whole(best_network, image))])
        found = scores_of(manifests, "plain", split)
        names = {name.removeprefix("best/") for name in found if name.startswith("best/")}
        assert names >= {*best}
        assert {name: found[f"best/{name}"] for name in best} == pytest.approx(best)
        last = predicted_whole(trained(artifacts, "plain"), image)
        assert found["miou"] == pytest.approx(pixel_scores([(truth, last)])["miou"])
        assert np.array_equal(matrix_of(manifests, "plain", split), counted([(truth, last)]))
    on_val = scores_of(manifests, "plain", "val")
    assert on_val["best/miou"] == pytest.approx(log["value"].max())
    assert "test best" in result.stdout


def test_images_without_a_known_pixel_have_no_score(
    call: Call, data: Path, manifests: Path
) -> None:
    ignored = Image.fromarray(np.full((24, 32), 255, np.uint8))
    ignored.save(data / "val/masks/0.png")
    shown = call("run").stdout
    assert (
        "mean IoU, %; gain over Labeled only on test; no pixel of val has a class in its label file"
    ) in shown
    on_val = scores_of(manifests, "plain", "val")
    assert set(on_val) == {"miou", "nan_miou", "pixel_accuracy", "boundary_miou"}
    assert np.isnan([np.nan if value is None else value for value in on_val.values()]).all()
    assert not matrix_of(manifests, "plain", "val").any()
    miou = f"{100 * (scores_of(manifests, 'plain', 'test')['miou'] or 0):.1f}"
    assert re.search(rf"Labeled only +│ +- │ +{miou} │ +- │", shown)
    ignored.save(data / "test/masks/0.png")
    shown = call("run").stdout
    assert "; no pixel of val and test has a class in its label file" in shown
    assert re.search(r"Labeled only +│ +- │ +- │ +- │", shown)
    assert re.search(r"disc +│ +- │ +- │", shown)
    assert "other scores" not in shown


def test_a_report_card_without_truth_has_no_score(call: Call, data: Path, manifests: Path) -> None:
    for path in (data / "labeled/masks").iterdir():
        Image.fromarray(np.full((24, 32), 255, np.uint8)).save(path)
    shown = call("run pseudolabel")
    card = pd.read_parquet(manifests / "report_card")
    assert set(card["images"]) == {2}
    assert card[["miou", "pixel_accuracy", "coverage", "ece"]].isna().all(axis=None)
    assert re.search(r"clip +│ +2 │ +- │ +- │ +- │ +- │ +- │ +- │ +- │", shown.stdout)
    assert "2 of 2 label files hold only 255; 255 is ignore" in shown.stderr
    assert "report cards have no scores" in shown.stderr


def test_a_gain_on_a_single_true_class_is_not_shown(call: Call, data: Path) -> None:
    for path in (data / "test/masks").iterdir():
        Image.fromarray(np.zeros((24, 32), np.uint8)).save(path)
    shown = call("run").stdout
    assert "test shows no class but background: a constant scores best" in shown
    rows = re.findall(r"│ (?:Labeled only|web) .*", shown)[:2]
    assert [row.split("│")[-2].strip() for row in rows] == ["-", "-"]


def test_a_class_that_occurs_nowhere_has_no_iou() -> None:
    scores = Scores.empty(CLASSES)
    scores.add(np.zeros((4, 4), np.uint8), np.eye(4, dtype=np.uint8))
    rows = scores.metric_rows("tiny", ScoreKey("training", "plain", 0, "val"), 1)
    found = {row["name"]: row["value"] for row in rows}
    names = {f"{kind}/{name}" for kind in ("iou", "boundary_iou") for name in CLASSES[:2]}
    assert set(found) == names | {"miou", "nan_miou", "boundary_miou", "pixel_accuracy"}
    assert found["iou/disc"] == 0
    assert found["iou/background"] == 0.75
    assert found["miou"] == 0.25


def test_a_protocol_that_cannot_be_is_an_error_in_a_line(
    values: dict[str, Any], write: Write, outcome: Call
) -> None:
    values["evaluate"] = {"sliding_window": {"side_px": 32, "stride_px": 64}}
    write(values)
    result = outcome("run")
    assert result.returncode == 1
    assert "evaluate.sliding_window: these keys are wrong; stride_px is larger" in result.stderr
