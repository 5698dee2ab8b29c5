import re
from collections.abc import Callable
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

from pipeline.config.vocabulary import ClassEntry, Vocabulary
from pipeline.images.images import content_id
from pipeline.records.label_reader import LabelReader
from pipeline.records.tables import CONFUSION, METRICS
from stages.evaluate.scores import Scores
from stages.labels.boundary import BoundaryCounts
from stages.labels.confusion import Confusion
from stages.models.segmenters.builders.small_unet import SmallUNetConfig, SmallUNetModel
from stages.models.segmenters.normalization import normalize
from stages.models.segmenters.predictor import Predictor
from stages.models.segmenters.protocol import Protocol

Call = Callable[..., CompletedProcess[str]]
WriteConfig = Callable[..., Path]
CLASSES = ("background", "disc", "box")
SHAPES = Vocabulary(
    name="shapes", classes=tuple(ClassEntry(name=name, color="#000000") for name in CLASSES)
)


@pytest.fixture
def config(values: dict[str, Any], write_config: WriteConfig) -> Path:
    return write_config(values)


def scores_of(manifests: Path, variant: str, split: str, seed: int | None = 0) -> dict[str, float]:
    rows = pd.read_parquet(manifests / "metrics")
    assert list(rows.columns) == METRICS.schema.names
    rows = rows[(rows["variant"] == variant) & (rows["split"] == split) & rows["epoch"].isna()]
    rows = rows[rows["seed"].isna() if seed is None else rows["seed"] == seed]
    assert set(rows["run"]) == {"tiny"}
    return dict(zip(rows["name"], rows["value"], strict=True))


def matrix_of(
    manifests: Path, variant: str, split: str, seed: int | None = 0
) -> npt.NDArray[np.int64]:
    """As the data dictionary says that it is read."""
    rows = pd.read_parquet(manifests / "confusion")
    assert list(rows.columns) == CONFUSION.schema.names
    rows = rows[(rows["variant"] == variant) & (rows["split"] == split)]
    rows = rows[rows["seed"].isna() if seed is None else rows["seed"] == seed]
    named = rows.loc[rows["predicted_id"] != 255]
    assert [CLASSES[i] for i in named["predicted_id"]] == named["predicted_class"].tolist()
    assert [CLASSES[i] for i in rows["true_id"]] == rows["true_class"].tolist()
    matrix = rows.pivot(index="true_id", columns="predicted_id", values="pixels")
    assert [*matrix.columns] == [0, 1, 2, 255]
    return matrix.to_numpy()


def parts(manifests: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (manifests / "metrics").iterdir()}


def test_variants_are_scored_on_val_and_test(
    config: Path, call: Call, data: Path, manifests: Path, artifacts: Path
) -> None:
    assert call("run", config).returncode == 0
    for variant in ("plain", "web"):
        network = SmallUNetModel(SmallUNetConfig(encoder_weights=None)).build(SHAPES).eval()
        folder = artifacts / "checkpoints" / variant / "seed-0"
        (weights,) = folder.glob("*/model.safetensors")
        network.load_state_dict(load_file(weights))
        for split in ("val", "test"):
            pixels = torch.from_numpy(np.array(Image.open(data / split / "images/0.png")))
            with torch.inference_mode():
                logits = network(normalize(pixels.permute(2, 0, 1)[None].float() / 255))
            confusion = Confusion.empty(len(CLASSES))
            boundaries = BoundaryCounts.empty(len(CLASSES))
            truth = np.array(Image.open(data / split / "masks/0.png"))
            for counts in (confusion, boundaries):
                counts.add(truth, logits.argmax(1)[0].numpy().astype(np.uint8))
            found = scores_of(manifests, variant, split)
            assert found.pop("boundary_miou") == pytest.approx(boundaries.miou)
            for name, iou in zip(CLASSES, boundaries.iou, strict=True):
                assert found.pop(f"boundary_iou/{name}") == pytest.approx(iou)
            assert found == pytest.approx(confusion.scores(CLASSES))
            assert np.array_equal(matrix_of(manifests, variant, split), confusion.counts)


def test_labelers_are_scored_on_all_that_they_labeled_and_a_person_too(
    values: dict[str, Any],
    write_config: WriteConfig,
    call: Call,
    data: Path,
    manifests: Path,
    tmp_path: Path,
) -> None:
    values["pseudolabel"]["roles"] = ["ood", "unlabeled", "test"]
    result = call("run", write_config(values))
    assert result.returncode == 0, result.stderr
    labels = pd.read_parquet(manifests / "pseudo_labels").set_index("image_id")
    for role, count in (("labeled", 2), ("test", 1)):
        confusion = Confusion.empty(len(CLASSES))
        for number in range(count):
            image_id = content_id((data / role / f"images/{number}.png").read_bytes())
            label = labels.loc[[image_id]].to_dict("records")[0]
            reader = LabelReader(tmp_path / "workspace" / label["store"])
            ((mask, _),) = reader.read([label["row"]], [(24, 32)])
            confusion.add(np.array(Image.open(data / role / f"masks/{number}.png")), mask)
        scores = confusion.scores(CLASSES)
        if role == "test":
            found = scores_of(manifests, "clip", role, seed=None)
            assert {name: found[name] for name in scores} == pytest.approx(scores)
            matrix = matrix_of(manifests, "clip", role, seed=None)
            assert np.array_equal(matrix, confusion.counts)
            continue
        card = pd.read_parquet(manifests / "report_card").iloc[0]
        assert card["miou"] == pytest.approx(scores["miou"])
        assert card["pixel_accuracy"] == pytest.approx(scores["pixel_accuracy"])
    metrics = pd.read_parquet(manifests / "metrics")
    assert set(metrics[metrics["variant"] == "clip"]["split"]) == {"test"}
    assert "labelers against the label files of the images they labeled" in result.stdout


def test_every_seed_is_scored_and_shown_with_the_others(
    values: dict[str, Any], write_config: WriteConfig, call: Call, manifests: Path
) -> None:
    values["train"]["seeds"] = [3, 4]
    values["evaluate"]["notes"] = ["All arms train for one step."]
    result = call("run", write_config(values))
    assert result.returncode == 0, result.stderr
    each = [100 * scores_of(manifests, "plain", "test", seed)["miou"] for seed in (3, 4)]
    assert each[0] != each[1]
    assert f"{np.mean(each):.1f} ± {np.std(each, ddof=1):.1f}" in result.stdout
    assert "note: All arms train for one step.\n" in result.stdout


def test_a_run_ends_with_the_tables_and_where_the_report_is(
    config: Path, call: Call, manifests: Path, artifacts: Path
) -> None:
    result = call("run", config)
    for text in ("Labeled only", "web", "val mIoU", "test mIoU", *CLASSES, "clip"):
        assert text in result.stdout
    miou = scores_of(manifests, "plain", "test")["miou"]
    assert f"{100 * miou:.1f}" in result.stdout
    assert result.stdout.splitlines()[-1] == f"report: {artifacts}/report/index.html"
    before = parts(manifests)
    again = call("run", config)
    assert "evaluate: nothing to do, 3 fresh" in again.stderr
    assert again.stdout == result.stdout
    assert parts(manifests) == before


def test_only_what_was_trained_anew_is_scored_anew(
    config: Path, call: Call, manifests: Path
) -> None:
    call("run", config)
    before = parts(manifests)
    call("run", config, "train.variants.web.steps=2")
    changed = {name for name, time in parts(manifests).items() if before[name] != time}
    assert changed == {"part-train-web-seed-0.parquet", "part-evaluate-web-seed-0.parquet"}
    scores = pd.read_parquet(manifests / "metrics/part-evaluate-web-seed-0.parquet")
    assert set(scores["step"]) == {2}


def test_another_protocol_scores_trainings_anew_and_nothing_else(
    values: dict[str, Any], write_config: WriteConfig, call: Call, data: Path, manifests: Path
) -> None:
    values["pseudolabel"]["roles"] = ["ood", "test"]
    config = write_config(values)
    call("run", config)
    before, labeler = parts(manifests), matrix_of(manifests, "clip", "test", None)
    protocol = {
        "sliding_window": {"side_px": 16, "stride_px": 12, "mode": "snap", "average": "logits"},
        "short_side_px": 20,
        "flip": True,
        "scales": [1.0, 1.5],
    }
    values["evaluate"] = protocol
    result = call("run", write_config(values))
    assert result.returncode == 0, result.stderr
    assert "evaluate: evaluate.flip false -> true" in result.stderr
    changed = {name for name, time in parts(manifests).items() if before[name] != time}
    assert changed == {f"part-evaluate-{name}-seed-0.parquet" for name in ("plain", "web")}
    assert np.array_equal(matrix_of(manifests, "clip", "test", None), labeler)

    network = SmallUNetModel(SmallUNetConfig(encoder_weights=None)).build(SHAPES).eval()
    folder = manifests.parents[1] / "artifacts/tiny/checkpoints/web/seed-0"
    (trained,) = folder.glob("*/model.safetensors")
    network.load_state_dict(load_file(trained))
    predictor = Predictor(network, torch.device("cpu"), Protocol.model_validate(protocol))
    confusion = Confusion.empty(len(CLASSES))
    pixels = np.array(Image.open(data / "test/images/0.png"))
    confusion.add(np.array(Image.open(data / "test/masks/0.png")), predictor.predict(pixels))
    assert np.array_equal(matrix_of(manifests, "web", "test"), confusion.counts)


def test_weights_that_were_best_on_val_are_scored_beside_the_last(
    values: dict[str, Any], write_config: WriteConfig, call: Call, manifests: Path
) -> None:
    values["train"]["validate_every"] = 1
    result = call("run", write_config(values))
    assert result.returncode == 0, result.stderr
    for split in ("val", "test"):
        found = scores_of(manifests, "plain", split)
        best = {name.removeprefix("best/") for name in found if name.startswith("best/")}
        assert best == {name for name in found if not name.startswith("best/")}
    on_val = scores_of(manifests, "plain", "val")
    assert on_val["best/miou"] >= on_val["miou"]
    assert "test best" in result.stdout


def test_a_protocol_that_cannot_be_is_an_error_in_a_line(
    values: dict[str, Any], write_config: WriteConfig, call: Call
) -> None:
    values["evaluate"] = {"sliding_window": {"side_px": 32, "stride_px": 64}}
    result = call("run", write_config(values))
    assert result.returncode == 1
    assert "evaluate.sliding_window: these keys are wrong; stride_px is larger" in result.stderr


def test_damaged_confusion_matrices_are_found_and_made_anew(
    config: Path, call: Call, manifests: Path
) -> None:
    call("run", config)
    part = manifests / "confusion/part-evaluate-web-seed-0.parquet"
    whole, matrix = part.read_bytes(), matrix_of(manifests, "web", "test")
    part.write_bytes(whole[:-1])
    assert "not the bytes that were written" in call("verify", config).stdout
    assert call("verify --rerun", config).returncode == 0
    assert np.array_equal(matrix_of(manifests, "web", "test"), matrix)
    part.unlink()
    assert "is gone: variant web seed 0" in call("run", config).stderr
    assert np.array_equal(matrix_of(manifests, "web", "test"), matrix)


def test_scores_of_what_the_config_no_longer_names_are_garbage(
    values: dict[str, Any], write_config: WriteConfig, call: Call, manifests: Path
) -> None:
    call("run", write_config(values))
    del values["train"]["variants"]["web"]
    config = write_config(values)
    call("run", config)
    call("gc", config)
    names = {"part-evaluate-plain-seed-0.parquet", "part-labeler-clip.parquet"}
    assert {path.name for path in (manifests / "confusion").iterdir()} == names


def test_new_labels_are_scored_anew(config: Path, call: Call, manifests: Path) -> None:
    call("run", config)
    threshold = "pseudolabel.labelers.clip.threshold=0.5"
    assert "evaluate: report card changed: labeler clip" in call("run", config, threshold).stderr


def test_a_lost_report_comes_back(config: Path, call: Call, artifacts: Path) -> None:
    call("run", config)
    page = artifacts / "report/index.html"
    content = page.read_text()
    assert "IoU by class on the labeled images, %" in content
    page.unlink()
    assert "is gone: 3 units" in call("run", config).stderr
    assert page.read_text() == content


@pytest.mark.parametrize(
    ("name", "units"), [("labels-clip.png", "labeler clip"), ("predictions-test.png", "2 units")]
)
def test_a_lost_picture_comes_back(
    name: str, units: str, config: Path, call: Call, artifacts: Path
) -> None:
    call("run", config)
    picture = artifacts / "report" / name
    content = picture.read_bytes()
    picture.unlink()
    assert f"{name} is gone: {units}" in call("run", config).stderr
    assert picture.read_bytes() == content


def test_a_report_that_was_never_drawn_is_missed(
    config: Path, call: Call, data: Path, artifacts: Path, manifests: Path
) -> None:
    """New scores and an old page: whatever came in between, the page is drawn again."""
    call("run", config)
    page = artifacts / "report/index.html"
    old = page.read_text()
    picture = page.with_name("labels-clip.png")
    picture.unlink()
    picture.mkdir()  # so that the report fails after the scores were committed
    before = parts(manifests)
    assert call("run", config, "train.steps=2").returncode == 1
    assert parts(manifests) != before
    picture.rmdir()
    assert call("run", config, "train.steps=2").returncode == 0
    assert page.read_text() != old
    assert picture.is_file()


def test_a_split_without_images_has_no_column(
    values: dict[str, Any], write_config: WriteConfig, call: Call
) -> None:
    del values["ingest"]["sources"]["test"]
    result = call("run", write_config(values))
    assert result.returncode == 0
    assert "val mIoU" in result.stdout
    assert "test mIoU" not in result.stdout


def test_images_without_a_known_pixel_have_no_score(
    config: Path, call: Call, data: Path, manifests: Path
) -> None:
    ignored = Image.fromarray(np.full((24, 32), 255, np.uint8))
    ignored.save(data / "val/masks/0.png")
    shown = call("run", config).stdout
    assert (
        "mean IoU, %; gain over Labeled only on test; no pixel of val has a class in its label file"
    ) in shown
    assert set(scores_of(manifests, "plain", "val")) == {
        *("miou", "nan_miou", "pixel_accuracy", "boundary_miou")
    }
    assert np.isnan([*scores_of(manifests, "plain", "val").values()]).all()
    miou = f"{100 * scores_of(manifests, 'plain', 'test')['miou']:.1f}"
    assert re.search(rf"Labeled only +│ +- │ +{miou} │ +- │", shown)
    ignored.save(data / "test/masks/0.png")
    shown = call("run", config).stdout
    assert "; no pixel of val and test has a class in its label file" in shown
    assert re.search(r"Labeled only +│ +- │ +- │ +- │", shown)
    assert re.search(r"disc +│ +- │ +- │", shown)
    assert "other scores" not in shown


def test_a_class_that_occurs_nowhere_has_no_iou() -> None:
    scores = Scores.empty(CLASSES)
    scores.add(np.zeros((4, 4), np.uint8), np.eye(4, dtype=np.uint8))
    found = {row["name"]: row["value"] for row in scores.metric_rows({})}
    names = {f"{kind}/{name}" for kind in ("iou", "boundary_iou") for name in CLASSES[:2]}
    assert set(found) == names | {"miou", "nan_miou", "boundary_miou", "pixel_accuracy"}
    assert found["iou/disc"] == 0
    assert found["miou"] == found["iou/background"] / 3 == 0.25


def test_without_training_only_labelers_are_scored(
    values: dict[str, Any], write_config: WriteConfig, call: Call
) -> None:
    del values["train"]
    result = call("run", write_config(values))
    assert result.returncode == 0, result.stderr
    assert "report card: labelers against the label files of the labeled images" in result.stdout
    assert "variant" not in result.stdout
