"""A tiny run from images to report that is made once; tests change copies of it."""

import shutil
from collections.abc import Callable, Sequence
from contextlib import chdir
from functools import cache
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml

from pipeline.config import config as config_file
from pipeline.config.config import Config
from pipeline.console import Console
from pipeline.engine.runner import Request, Runner
from pipeline.engine.states import StageState
from stages.graph import GRAPH
from tests.conftest import COUNTS, VOCABULARY, WITH_MASKS
from tests.shapes import draw_shapes

CLASSES = ("background", "disc", "box")
CONFIG = Path("config.yaml")
"""Relative, as all paths of the config are: a copy of the folder is the same run."""

__all__ = ["artifacts", "call", "data", "manifests", "outcome", "run_folder", "values", "write"]


def plain_values() -> dict[str, Any]:
    """A config of a labeler, two variants of a step each, evaluation and report."""
    sources: dict[str, Any] = {}
    for role in COUNTS:
        source = {"name": "folder", "images": f"{role}/images"}
        masks = {"masks": f"{role}/masks"} if role in WITH_MASKS else {}
        sources[role] = {"role": role, "source": {**source, **masks}}
    clip = {"name": "dense_clip", "model": "sandbox", "window_px": 32, "stride_px": 32}
    return {
        "run": "tiny",
        "workspace": "workspace",
        "data": "data",
        "vocabulary": "vocabulary.yaml",
        "ingest": {"shard_size": 4, "sources": sources},
        "pseudolabel": {"size_px": 32, "roles": ["ood", "test"], "labelers": {"clip": clip}},
        "train": {
            "model": {"name": "small_unet", "encoder_weights": None},
            "perturbation": "unimatch",
            "crop_px": 32,
            "batch_size": 2,
            "steps": 1,
            "variants": {
                "plain": {"title": "Labeled only"},
                "web": {"label_sources": [{"name": "stored", "labeler": "clip"}]},
            },
        },
        "evaluate": {},
        "report": {},
    }


def write_files(folder: Path, values: dict[str, Any], vocabulary: dict[str, Any]) -> Path:
    """Writes a config and its vocabulary."""
    (folder / "vocabulary.yaml").write_text(yaml.safe_dump({**VOCABULARY, **vocabulary}))
    (folder / CONFIG).write_text(yaml.safe_dump(values, sort_keys=False))
    return CONFIG


def load(overrides: Sequence[str] = (), path: Path = CONFIG) -> Config:
    """Reads the config of the run in the working directory."""
    return config_file.load(path, {stage.name: stage.Config for stage in GRAPH}, overrides)


@cache
def finished(folder: Path) -> Path:
    """Runs the config in a folder, once in a session."""
    draw_shapes(folder / "data", COUNTS, WITH_MASKS)
    write_files(folder, plain_values(), {})
    with chdir(folder):
        Runner(load(), GRAPH, Console()).run(Request())
    return folder


def copied(folder: Path, target: Path) -> None:
    """Copies a run; its images have new inodes, so ingest reads them once to see they are equal."""
    shutil.copytree(folder, target, dirs_exist_ok=True, copy_function=shutil.copy2)
    with chdir(target):
        Runner(load(), GRAPH, Console()).run(Request(("ingest",), only=True))


@pytest.fixture
def run_folder(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy of the finished run; the working directory."""
    original = tmp_path_factory.getbasetemp() / "finished"
    copied(finished(original), tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def values() -> dict[str, Any]:
    """The plain values of the finished run's config."""
    return plain_values()


@pytest.fixture
def write(run_folder: Path) -> Callable[..., Path]:
    """Writes the config with other values: ``write(values, classes=[...])``."""

    def write(values: dict[str, Any], **vocabulary: Any) -> Path:
        return write_files(run_folder, values, vocabulary)

    return write


@pytest.fixture
def data(run_folder: Path) -> Path:
    """The images of the run."""
    return run_folder / "data"


@pytest.fixture
def manifests(run_folder: Path) -> Path:
    """The manifests of the run."""
    return run_folder / "workspace/manifests/tiny"


@pytest.fixture
def artifacts(run_folder: Path) -> Path:
    """The artifacts of the run."""
    return run_folder / "workspace/artifacts/tiny"


@pytest.fixture
def outcome(
    run_folder: Path, maskmill: Callable[..., CompletedProcess[str]]
) -> Callable[..., CompletedProcess[str]]:
    """The command line with the run's config: ``outcome("run train", "train.steps=3")``."""

    def command(line: str, *overrides: str) -> CompletedProcess[str]:
        sets = [part for override in overrides for part in ("--set", override)]
        return maskmill(*line.split(), "--config", CONFIG, *sets)

    return command


@pytest.fixture
def call(
    outcome: Callable[..., CompletedProcess[str]],
) -> Callable[..., CompletedProcess[str]]:
    """`outcome` of a command that must succeed."""

    def command(line: str, *overrides: str) -> CompletedProcess[str]:
        result = outcome(line, *overrides)
        assert result.returncode == 0, result.stderr
        return result

    return command


def states(*overrides: str) -> dict[str, StageState]:
    """The states of all stages of the run in the working directory, as `status` shows them."""
    runner = Runner(load(overrides), GRAPH, Console())
    return {state.name: state for state in runner.status()}


def not_fresh(*overrides: str) -> dict[str, list[str]]:
    """By stage that is not fresh the units that are not."""
    found = {name: [u.name for u in state.unfinished] for name, state in states(*overrides).items()}
    return {name: units for name, units in found.items() if units}


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Of every file below a folder what changes when it is written again."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(f.relative_to(folder)): (f.stat().st_mtime_ns, f.stat().st_ino) for f in files}


def written(before: dict[str, tuple[int, int]], folder: Path) -> set[str]:
    """Files below a folder that are new or were written again since `before`."""
    return {name for name, stamp in stamps(folder).items() if before.get(name) != stamp}
