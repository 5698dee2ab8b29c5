"""Finished work of former keys is kept: going back to them does nothing again."""

import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pandas as pd
import pytest

from tests.finished_run import not_fresh, stamps, written
from tests.pipeline import killing

Call = Callable[..., CompletedProcess[str]]
Write = Callable[..., Path]
TABLES = ("pseudo_labels", "report_card", "metrics", "confusion")
EDITS = {
    "train": ["train.learning_rate=0.5"],
    "labeler": ["pseudolabel.labelers.clip.threshold=0.66"],
    "protocol": ["evaluate.flip=true"],
    "all": ["train.steps=2", "pseudolabel.labelers.clip.threshold=0.66", "evaluate.flip=true"],
}
PLACES = {
    "pseudo_labels": ["labeler", "image_id"],
    "report_card": ["labeler", "calibration"],
    "metrics": ["kind", "variant", "seed", "split", "name", "step"],
    "confusion": ["kind", "variant", "seed", "split", "true_id", "predicted_id"],
}


def read(manifests: Path) -> dict[str, pd.DataFrame]:
    """Every table as a user reads it; no two rows of one thing."""
    found = {name: pd.read_parquet(manifests / name) for name in TABLES}
    for name, rows in found.items():
        assert not rows.duplicated(PLACES[name]).any(), name
    return found


def assert_equal(found: dict[str, pd.DataFrame], expected: dict[str, pd.DataFrame]) -> None:
    for name in TABLES:
        pd.testing.assert_frame_equal(found[name], expected[name])


@pytest.mark.parametrize("edit", EDITS)
def test_going_back_does_nothing_again(
    edit: str, call: Call, manifests: Path, artifacts: Path
) -> None:
    first = read(manifests)
    call("run evaluate", *EDITS[edit])
    second, files = read(manifests), stamps(artifacts)
    assert not second["metrics"].equals(first["metrics"])
    for overrides, rows in ([], first), (EDITS[edit], second), ([], first):
        assert [name for name in not_fresh(*overrides) if name != "report"] == []
        before = read(manifests)
        result = call("run evaluate", *overrides)
        assert_equal(read(manifests), rows)
        for stage in ("ingest", "pseudolabel", "train", "evaluate"):
            assert f"{stage}: nothing to do" in result.stderr
        assert "evaluate: " in result.stderr
        assert "of an earlier run with these keys restored" in result.stderr
        assert written(files, artifacts) == set()
        assert not before["metrics"].equals(rows["metrics"])
    assert not_fresh() == {}  # the page was never drawn for the other keys
    assert "report: nothing to do, 3 fresh" in call("run").stderr


def test_status_changes_nothing(call: Call, run_folder: Path) -> None:
    call("run evaluate", *EDITS["all"])
    before = stamps(run_folder)
    assert not_fresh() == {}
    assert not_fresh(*EDITS["all"]) != {}  # the page alone
    call("status")
    call("run --dry-run")
    assert written(before, run_folder) == set()


def test_the_report_is_drawn_again_as_it_was(call: Call, artifacts: Path) -> None:
    """Pictures are not kept; they and the page follow the scores."""
    page = artifacts / "report/index.html"
    before = page.read_bytes()
    call("run", *EDITS["train"])
    assert page.read_bytes() != before
    assert not_fresh() == {"report": ["picture of predictions on test", "page"]}
    call("run")
    assert page.read_bytes() == before


def test_two_former_configs_are_kept(call: Call, manifests: Path) -> None:
    one, two = ["train.learning_rate=0.5"], ["train.learning_rate=0.25", "evaluate.flip=true"]
    rows = {0: read(manifests)}
    for number, overrides in ((1, one), (2, two)):
        call("run evaluate", *overrides)
        rows[number] = read(manifests)
    for number, overrides in ((1, one), (0, []), (2, two), (1, one)):
        assert [name for name in not_fresh(*overrides) if name != "report"] == []
        call("run evaluate", *overrides)
        assert_equal(read(manifests), rows[number])


def test_what_was_kept_and_lost_its_files_is_done_again(
    call: Call, manifests: Path, artifacts: Path
) -> None:
    first = read(manifests)
    (weights,) = (artifacts / "checkpoints/web").glob("*/*/model.safetensors")
    call("run evaluate", *EDITS["train"])
    content = weights.read_bytes()
    weights.unlink()
    assert not_fresh()["train"] == ["web seed 0"]
    call("run evaluate")
    assert weights.read_bytes() == content
    assert_equal(read(manifests), first)


def test_gc_deletes_what_is_kept_and_nothing_that_is_fresh(
    call: Call, manifests: Path, artifacts: Path
) -> None:
    first = read(manifests)
    call("run evaluate", *EDITS["all"])
    before, listed = stamps(manifests.parents[1]), call("gc --dry-run").stdout
    assert written(before, manifests.parents[1]) == set()
    assert not_fresh() == {}
    deleted = call("gc").stdout
    assert not_fresh() == {}
    assert_equal(read(manifests), first)
    assert not [*(manifests / ".kept").rglob("*.parquet")]
    for variant in ("plain", "web"):
        assert len([*(artifacts / "checkpoints" / variant / "seed-0").iterdir()]) == 1
    assert "nothing to delete" in call("gc").stdout
    assert listed.count("would delete") == deleted.count(": deleted ")
    assert "checkpoints/web" in listed
    assert "checkpoints/web" in deleted
    assert {*not_fresh(*EDITS["all"])} >= {"pseudolabel", "train"}


@pytest.fixture
def halfway(
    run_folder: Path, values: dict[str, Any], write: Write, call: Call
) -> Callable[[], None]:
    """Brings the workspace to where another config was run after this one."""
    values["workspace"] = str(run_folder / "workspace")  # a kill counts changes below it
    write(values)
    call("run evaluate", *EDITS["all"])
    shutil.copytree("workspace", "halfway", copy_function=shutil.copy2)

    def begin() -> None:
        shutil.rmtree("workspace")
        shutil.copytree("halfway", "workspace", copy_function=shutil.copy2)

    return begin


def kill_while_restoring(
    kill_at: int, manifests: Path, artifacts: Path, first: dict[str, pd.DataFrame]
) -> None:
    files = stamps(artifacts)
    assert killing.run(Path("config.yaml"), kill_at).code == -9
    read(manifests)
    assert not_fresh() == {}
    assert [name for name in not_fresh(*EDITS["all"]) if name != "report"] == []
    assert killing.run(Path("config.yaml")).code == 0
    assert_equal(read(manifests), first)
    assert [name for name in not_fresh(*EDITS["all"]) if name != "report"] == []
    assert written(files, artifacts) == set()
    assert killing.leftovers(Path("workspace")) == []


@pytest.mark.slow
def test_a_kill_while_restoring_loses_nothing(
    manifests: Path, artifacts: Path, halfway: Callable[[], None]
) -> None:
    halfway()
    whole = killing.run(Path("config.yaml"))
    assert whole.code == 0
    first = read(manifests)
    for kill_at in range(2, whole.changes, whole.changes // 4):
        halfway()
        kill_while_restoring(kill_at, manifests, artifacts, first)


@pytest.mark.slow
def test_a_kill_at_any_change_while_restoring_loses_nothing(
    manifests: Path, artifacts: Path, halfway: Callable[[], None]
) -> None:
    halfway()
    whole, first = killing.run(Path("config.yaml")), read(manifests)
    for kill_at in range(1, whole.changes + 1):
        halfway()
        kill_while_restoring(kill_at, manifests, artifacts, first)
