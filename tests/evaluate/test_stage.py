"""Which scores are made, kept and dropped; every test changes a copy of a finished run."""

import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.evaluate.reading import matrix_of, scores_of
from tests.finished_run import CLASSES, not_fresh, stamps, written

Call = Callable[..., CompletedProcess[str]]
Write = Callable[..., Path]


def parts(name: str) -> set[str]:
    """The files of a score, below the manifests."""
    return {f"{table}/part-score-{name}.parquet" for table in ("metrics", "confusion")}


def score_parts(manifests: Path) -> set[str]:
    return {name for name in stamps(manifests) if "/part-score-" in name and ".kept" not in name}


def test_a_run_ends_with_the_tables_and_does_nothing_again(
    call: Call, run_folder: Path, manifests: Path
) -> None:
    before = stamps(run_folder)
    result = call("results")
    for text in ("Labeled only", "web", "val mIoU", "test mIoU", *CLASSES, "clip"):
        assert text in result.stdout
    miou = scores_of(manifests, "plain", "test")["miou"]
    assert miou is not None
    assert f"{100 * miou:.1f}" in result.stdout
    assert result.stdout.splitlines()[-1] == "report: workspace/artifacts/tiny/report/index.html"
    again = call("run")
    assert "evaluate: nothing to do, 5 fresh" in again.stderr
    assert again.stdout == ""
    assert written(before, run_folder) <= {"workspace/manifests/tiny/.lock"}


def test_only_what_was_trained_again_is_scored_again(call: Call, manifests: Path) -> None:
    before = stamps(manifests)
    call("run evaluate", "train.variants.web.steps=2")
    changed = {name for name in written(before, manifests) if name.startswith("metrics/")}
    scores = {
        f"metrics/part-score-training-web-seed-0-{split}.parquet" for split in ("val", "test")
    }
    assert changed == {"metrics/part-train-web-seed-0.parquet", *scores}
    for name in scores:
        assert set(pd.read_parquet(manifests / name)["step"]) == {2}


def test_damaged_confusion_matrices_are_found_and_made_again(
    call: Call, outcome: Call, manifests: Path
) -> None:
    name = "part-score-training-web-seed-0-test.parquet"
    part, before = manifests / "confusion" / name, stamps(manifests)
    whole, matrix = part.read_bytes(), matrix_of(manifests, "web", "test")
    part.write_bytes(whole[:-1])
    found = outcome("verify")
    assert found.returncode == 1
    assert f"{part.relative_to(Path.cwd())}: not the bytes that were written" in found.stdout
    call("verify --rerun")
    assert np.array_equal(matrix_of(manifests, "web", "test"), matrix)
    part.unlink()
    result = call("run")
    assert f"{name} is gone: training web seed 0 on test" in result.stderr
    assert np.array_equal(matrix_of(manifests, "web", "test"), matrix)
    assert written(before, manifests) & score_parts(manifests) == parts("training-web-seed-0-test")


def test_a_damaged_score_is_found_and_made_again(call: Call, manifests: Path) -> None:
    part = manifests / "metrics/part-score-training-web-seed-0-test.parquet"
    scores, content = scores_of(manifests, "web", "test"), part.read_bytes()
    part.write_bytes(content[: len(content) // 2])
    assert "evaluate" in not_fresh()
    call("verify --rerun")
    assert scores_of(manifests, "web", "test") == scores
    assert not_fresh() == {}


def test_scores_of_what_the_config_no_longer_names_are_garbage(
    values: dict[str, Any], write: Write, call: Call, manifests: Path
) -> None:
    del values["train"]["variants"]["web"]
    write(values)
    call("run")
    before = score_parts(manifests)
    call("gc")
    gone = parts("training-web-seed-0-val") | parts("training-web-seed-0-test")
    assert before - score_parts(manifests) == gone
    assert score_parts(manifests) == {
        *parts("training-plain-seed-0-val"),
        *parts("training-plain-seed-0-test"),
        *parts("labeler-clip-test"),
    }
    assert not_fresh() == {}  # the page showed nothing of them


def test_scores_of_a_seed_that_the_config_no_longer_has_are_not_shown(
    values: dict[str, Any], write: Write, call: Call, manifests: Path
) -> None:
    first = call("results").stdout
    values["train"]["seeds"] = [0, 1]
    write(values)
    assert "of 2 seeds" in call("run").stdout
    values["train"]["seeds"] = [0]
    write(values)
    call("run")
    assert call("results").stdout == first
    call("gc")
    assert not any("seed-1" in name for name in score_parts(manifests))
    assert not_fresh() == {}


def test_new_labels_are_scored_again(call: Call, manifests: Path) -> None:
    before = stamps(manifests)
    result = call("run evaluate", "pseudolabel.labelers.clip.threshold=0.5")
    assert "evaluate: labels changed: labeler clip on test" in result.stderr
    assert parts("labeler-clip-test") <= written(before, manifests)


def test_more_test_images_are_scored_and_val_is_not(
    call: Call, data: Path, manifests: Path
) -> None:
    for kind in ("images", "masks"):
        flipped = np.fliplr(np.array(Image.open(data / "test" / kind / "0.png")))
        Image.fromarray(flipped).save(data / "test" / kind / "1.png")
    before, val = stamps(manifests), matrix_of(manifests, "web", "val")
    result = call("run")
    assert "train: nothing to do, 2 fresh" in result.stderr
    assert "evaluate: images changed: 3 units" in result.stderr
    scored = {name for name in written(before, manifests) if "/part-score-" in name}
    assert scored == {
        *parts("training-plain-seed-0-test"),
        *parts("training-web-seed-0-test"),
        *parts("labeler-clip-test"),
    } | {name for name in scored if name.startswith(".kept/")}
    assert matrix_of(manifests, "web", "test").sum() == 2 * matrix_of(manifests, "web", "val").sum()
    assert np.array_equal(matrix_of(manifests, "web", "val"), val)
    assert not_fresh() == {}


def test_a_split_without_images_has_no_column(
    values: dict[str, Any], write: Write, call: Call, manifests: Path
) -> None:
    """Also where it had images and scores before."""
    del values["ingest"]["sources"]["test"]
    values["pseudolabel"]["roles"] = ["ood"]
    write(values)
    result = call("run")
    assert "val mIoU" in result.stdout
    assert "test mIoU" not in result.stdout
    assert set(pd.read_parquet(manifests / "confusion")["split"]) == {"val"}
    assert not_fresh() == {}


def test_parts_of_former_versions_are_dropped(call: Call, manifests: Path) -> None:
    """Their rows would stand next to those of today."""
    before = {name: pd.read_parquet(manifests / name) for name in ("metrics", "confusion")}
    for table in before:
        for name in ("evaluate-web-seed-0", "labeler-clip"):
            score = manifests / table / "part-score-training-web-seed-0-test.parquet"
            (manifests / table / f"part-{name}.parquet").write_bytes(score.read_bytes())
    assert not_fresh() == {}
    result = call("run")
    for table, rows in before.items():
        for name in ("evaluate-web-seed-0", "labeler-clip"):
            part = manifests / table / f"part-{name}.parquet"
            assert f"evaluate: drops {part.relative_to(Path.cwd())}" in result.stderr
        pd.testing.assert_frame_equal(pd.read_parquet(manifests / table), rows)
    assert "evaluate: nothing to do, 5 fresh" in result.stderr
    assert "report: nothing to do, 3 fresh" in result.stderr


def test_without_training_only_labelers_are_scored(
    values: dict[str, Any], write: Write, call: Call
) -> None:
    del values["train"]
    write(values)
    call("run")
    result = call("results")
    assert "report card: labelers against the label files of the labeled images" in result.stdout
    assert "variant" not in result.stdout
    assert re.search("clip +│ +test │", result.stdout)


@pytest.mark.parametrize("stage", ["evaluate", "report"])
def test_a_forced_stage_is_done_again_alike(
    stage: str, call: Call, manifests: Path, artifacts: Path
) -> None:
    page, before = (artifacts / "report/index.html").read_bytes(), stamps(manifests)
    tables = {name: pd.read_parquet(manifests / name) for name in ("metrics", "confusion")}
    call(f"run {stage} --force")
    done = {name for name in written(before, manifests) if name.endswith(".parquet")}
    assert len(done) == (10 if stage == "evaluate" else 3)
    assert (artifacts / "report/index.html").read_bytes() == page
    for name, rows in tables.items():
        pd.testing.assert_frame_equal(pd.read_parquet(manifests / name), rows)
    assert not_fresh() == ({"report": ["page"]} if stage == "evaluate" else {})
