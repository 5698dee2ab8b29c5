"""The real command line, as a user runs it: whole runs, reruns, and runs that die on the way."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
import zarr

from pipeline import stopping

REPOSITORY = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "maskmill"]
DEADLINE_S = 600
WITH_MASKS = ("labeled", "val", "test")
CONFIG: dict[str, Any] = {
    "run": "tiny",
    "vocabulary": str(REPOSITORY / "configs/vocabularies/sandbox.yaml"),
    "sandbox": {"long_side_px": 48, "labeled": 4, "unlabeled": 4, "ood": 24, "val": 2, "test": 2},
    "ingest": {
        "shard_size": 2,
        "sources": {
            role: {
                "role": role,
                "source": {
                    "name": "folder",
                    "images": f"{role}/images",
                    **({"masks": f"{role}/masks"} if role in WITH_MASKS else {}),
                },
            }
            for role in ("labeled", "unlabeled", "ood", "val", "test")
        },
    },
    "pseudolabel": {
        "size_px": 48,
        "labelers": {
            "clip": {"name": "dense_clip", "model": "sandbox", "window_px": 48, "stride_px": 48}
        },
    },
    "train": {
        "model": "small_unet",
        "perturbation": "unimatch",
        "crop_px": 32,
        "batch_size": 2,
        "steps": 8,
        "log_every": 1,
        "checkpoint_every": 1,
        "variants": {
            "labeled-only": {},
            "plus-ood": {
                "label_sources": [
                    {"name": "student", "threshold": 0.9},
                    {"name": "stored", "labeler": "clip"},
                ]
            },
        },
    },
    "evaluate": None,
}
MANIFESTS = Path("manifests/tiny")
ARTIFACTS = Path("artifacts/tiny")
LABELS = MANIFESTS / "pseudo_labels/labeler=clip"
CHECKPOINTS = ARTIFACTS / "checkpoints"


def start(workspace: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command in a process group of its own, so that all of it can be killed at once."""
    return subprocess.Popen(
        [*COMMAND, *arguments, "--config", "run.yaml"],
        cwd=workspace,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell that starts these tests in the background has Ctrl-C ignored, and so its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def maskmill(workspace: Path, *arguments: str) -> tuple[str, str]:
    """Stdout and stderr of a command that succeeds."""
    process = start(workspace, *arguments)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, err
    return out, err


def ended_by(
    number: signal.Signals, workspace: Path, when: Callable[[], bool], *arguments: str
) -> tuple[int, str]:
    """Starts a command, signals its whole group as soon as something is there: code, stderr."""
    process = start(workspace, *arguments)
    deadline = time.monotonic() + DEADLINE_S
    while not when() and process.poll() is None and time.monotonic() < deadline:
        try:
            process.wait(timeout=0.002)
        except subprocess.TimeoutExpired:
            continue
    assert process.poll() is None, f"it ended too early: {process.communicate()}"
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=DEADLINE_S)
    return process.returncode, err


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of a whole, undisturbed run."""
    workspace = tmp_path_factory.mktemp("finished")
    (workspace / "run.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    out, _ = maskmill(workspace, "run")
    assert "mean IoU" in out
    return workspace


@pytest.fixture
def workspace(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished workspace, to spoil."""
    copy = Path(shutil.copytree(finished, tmp_path / "workspace"))
    maskmill(copy, "run", "--only", "ingest")  # its images have new inodes
    return copy


def outputs(workspace: Path) -> dict[Path, int]:
    """Modification times of all that runs leave: parts, shards, checkpoints, the report."""
    files = [path for top in ("manifests", "artifacts") for path in (workspace / top).rglob("*")]
    return {path: path.stat().st_mtime_ns for path in files if path.is_file()}


def labels(workspace: Path) -> dict[tuple[str, str], bytes]:
    """Every stored mask and confidence, by image and array."""
    rows = pd.read_parquet(workspace / LABELS)
    found = {}
    for row in rows.to_dict("records"):
        group = zarr.open_group(workspace / row["store"], mode="r")
        for name in ("mask", "confidence"):
            found[row["image_id"], name] = np.asarray(group[name])[row["row"]].tobytes()
    return found


def checkpoints(workspace: Path, variant: str) -> list[Path]:
    return sorted((workspace / CHECKPOINTS / variant).glob("seed-0/*/last.pt"))


def weights(workspace: Path) -> dict[str, bytes]:
    files = (workspace / CHECKPOINTS).glob("*/seed-0/*/model.safetensors")
    return {path.parents[2].name: path.read_bytes() for path in files}


def test_status_shows_programs_the_state_of_every_stage(finished: Path) -> None:
    before = outputs(finished)
    status = json.loads(maskmill(finished, "status", "--json")[0])
    assert status.keys() == {"run", "stages"}
    assert status["run"] == "tiny"
    names = [stage["name"] for stage in status["stages"]]
    assert names == ["sandbox", "ingest", "pseudolabel", "train", "evaluate", "report"]
    for stage in status["stages"]:
        told = {"reasons", "causes", "remarks", "warnings", "faults"}
        assert stage.keys() == {"name", "state", "shards", *told}
        assert stage["shards"].keys() == {"fresh", "stale", "missing"}
        assert stage["shards"]["fresh"] > 0
        assert stage["shards"]["stale"] == stage["shards"]["missing"] == 0
        assert (stage["state"], stage["reasons"], stage["remarks"]) == ("fresh", [], [])
        assert stage["faults"] == []
    assert outputs(finished) == before


def test_a_second_run_does_nothing_and_says_so(finished: Path) -> None:
    before = outputs(finished)
    out, err = maskmill(finished, "run")
    for name in ("sandbox", "ingest", "pseudolabel", "train", "evaluate", "report"):
        assert f"{name}: nothing to do, " in err
    assert out == ""
    assert "mean IoU" in maskmill(finished, "results")[0]
    after = outputs(finished)
    lock = finished / MANIFESTS / ".lock"
    assert after.pop(lock) > before.pop(lock)
    assert after == before


def test_a_labelers_key_relabels_and_retrains_and_nothing_else(workspace: Path) -> None:
    before = outputs(workspace)
    override = "pseudolabel.labelers.clip.threshold=0.5"
    _, err = maskmill(workspace, "run", "--set", override)
    assert "pseudolabel: pseudolabel.labelers.clip.threshold 0.0 -> 0.5" in err
    assert "train: ood labels of clip changed: plus-ood seed 0" in err
    after = outputs(workspace)
    changed = {path.relative_to(workspace) for path in after if after[path] != before.get(path)}
    kept = {path for path in changed if path.is_relative_to(MANIFESTS / ".kept")}
    changed -= kept
    parts = {path for path in changed if path.suffix == ".parquet"}
    assert {path for path in parts if path.parent == LABELS} == {
        path.relative_to(workspace) for path in (workspace / LABELS).iterdir()
    }
    scored = [f"part-score-training-plus-ood-seed-0-{split}.parquet" for split in ("val", "test")]
    drawn = [f"part-{name}.parquet" for name in ("labels-clip", "predictions-test", "page")]
    assert {path for path in parts if path.parent != LABELS} == {
        MANIFESTS / "report_card/part-clip.parquet",
        MANIFESTS / "metrics/part-train-plus-ood-seed-0.parquet",
        *(MANIFESTS / table / name for table in ("metrics", "confusion") for name in scored),
        *(MANIFESTS / "report" / name for name in drawn),
    }
    new = {path for path in changed if path.name == "model.safetensors"}
    assert [path.parents[2] for path in new] == [CHECKPOINTS / "plus-ood"]
    assert not any(path.is_relative_to(CHECKPOINTS / "labeled-only") for path in changed)


@pytest.mark.slow
def test_labeling_that_was_killed_ends_with_the_same_masks(workspace: Path, finished: Path) -> None:
    shutil.rmtree(workspace / MANIFESTS / "pseudo_labels")
    shutil.rmtree(workspace / ARTIFACTS / "pseudo_labels")

    def parts() -> list[Path]:
        return sorted((workspace / LABELS).glob("part-*.parquet"))

    ended_by(signal.SIGKILL, workspace, lambda: bool(parts()), "run", "pseudolabel")
    done = {path: path.stat().st_mtime_ns for path in parts()}
    assert 0 < len(done) < len(list((finished / LABELS).iterdir()))
    maskmill(workspace, "run", "pseudolabel")
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert labels(workspace) == labels(finished)
    assert len(pd.read_parquet(workspace / LABELS)) == len(pd.read_parquet(finished / LABELS))


@pytest.mark.slow
def test_training_that_was_killed_resumes_to_the_same_weights(
    workspace: Path, finished: Path
) -> None:
    shutil.rmtree(workspace / MANIFESTS / "metrics")
    shutil.rmtree(workspace / CHECKPOINTS)
    ended_by(
        signal.SIGKILL, workspace, lambda: bool(checkpoints(workspace, "plus-ood")), "run", "train"
    )
    assert weights(workspace).keys() == {"labeled-only"}
    _, err = maskmill(workspace, "run", "train")
    assert "train plus-ood seed 0: resumes after step" in err
    assert "train labeled-only" not in err
    assert weights(workspace) == weights(finished)
    for part in (workspace / MANIFESTS / "metrics").iterdir():
        expected = pd.read_parquet(finished / MANIFESTS / "metrics" / part.name)
        pd.testing.assert_frame_equal(pd.read_parquet(part), expected)


@pytest.mark.parametrize(
    "overrides", [[], pytest.param(["--set", "cluster.workers=2"], marks=pytest.mark.slow)]
)
def test_ctrl_c_ends_labeling_quietly_and_keeps_what_is_done(
    workspace: Path, overrides: list[str]
) -> None:
    shutil.rmtree(workspace / MANIFESTS / "pseudo_labels")
    first = workspace / LABELS / "part-00002.parquet"
    command = ["run", "pseudolabel", *overrides]
    code, err = ended_by(signal.SIGINT, workspace, first.exists, *command)
    assert_ended_quietly(code, err, workspace)
    assert first.exists()


def test_ctrl_c_ends_training_quietly_and_keeps_what_is_done(workspace: Path) -> None:
    shutil.rmtree(workspace / MANIFESTS / "metrics")
    shutil.rmtree(workspace / CHECKPOINTS)
    code, err = ended_by(
        signal.SIGINT,
        workspace,
        lambda: bool(checkpoints(workspace, "labeled-only")),
        "run",
        "train",
    )
    assert_ended_quietly(code, err, workspace)
    assert checkpoints(workspace, "labeled-only")


def assert_ended_quietly(code: int, err: str, workspace: Path) -> None:
    assert code == 130, err
    assert stopping.NOTICE in err
    assert re.search(r"stopped: .* (are done|is saved); run the same command again to go on", err)
    assert all(word not in err for word in ("Traceback", "error", "distributed")), err
    assert not list(workspace.rglob("*.tmp"))
