"""A run of labels whose images move, vanish and return; tests compare what is labeled again."""

import json
import shutil
from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pandas as pd
import pytest
import yaml

from pipeline.config import config as config_file
from pipeline.console import Console
from pipeline.engine.runner import Request, Runner
from stages.graph import GRAPH
from tests.conftest import VOCABULARY
from tests.finished_run import stamps, written
from tests.shapes import draw_shapes

SHARD_SIZE = 4
COUNTS = {"labeled": 4, "ood": 12, "unlabeled": 12}


@dataclass
class Labeled:
    """A run that copies label files as labels.

    Attributes:
        folder: Folder of the config and the workspace.
        data: Folder of the images.
        values: Plain values of the config.
        call: The command line.
    """

    folder: Path
    data: Path
    values: dict[str, Any]
    call: Callable[..., CompletedProcess[str]]

    @property
    def sources(self) -> dict[str, Any]:
        """The sources by name."""
        sources: dict[str, Any] = self.values["ingest"]["sources"]
        return sources

    def outcome(self, line: str = "run") -> CompletedProcess[str]:
        """Runs a command with the present config."""
        Path("config.yaml").write_text(yaml.safe_dump(self.values, sort_keys=False))
        return self.call(*line.split(), "--config", "config.yaml")

    def run(self, line: str = "run") -> str:
        """Runs a command that must succeed; what it printed."""
        done = self.outcome(line)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def images(self) -> pd.DataFrame:
        """The images manifest by row."""
        return pd.read_parquet(self.folder / "work/manifests/moves/images").set_index("row")

    def labels(self) -> pd.DataFrame:
        """The labels by row."""
        table = pd.read_parquet(self.folder / "work/manifests/moves/pseudo_labels")
        return table.set_index("row")

    def labeled_again(self, line: str = "run") -> set[str]:
        """Runs a command that leaves all fresh; files of labels that it wrote or deleted."""
        before = stamps(self.folder / "work")
        self.run(line)
        states = json.loads(self.run("status --json"))["stages"]
        assert {state["name"]: state["state"] for state in states} == {
            "ingest": "fresh",
            "pseudolabel": "fresh",
        }, states
        after = stamps(self.folder / "work")
        changed = written(before, self.folder / "work") | (before.keys() - after.keys())
        return {name for name in changed if "pseudo_labels" in name}


@cache
def _labeled(folder: Path) -> Path:
    """Draws images in subfolders of a few each and labels them, once in a session."""
    draw_shapes(folder / "data", COUNTS, tuple(COUNTS))
    for kind in ("images", "masks"):
        for number in range(COUNTS["ood"]):
            path = folder / f"data/ood/{kind}/{number}.png"
            target = path.parent / str(number // SHARD_SIZE) / path.name
            target.parent.mkdir(exist_ok=True)
            path.rename(target)
    (folder / "vocabulary.yaml").write_text(yaml.safe_dump(VOCABULARY))
    with chdir(folder):
        Path("config.yaml").write_text(yaml.safe_dump(_values()))
        config = config_file.load(
            Path("config.yaml"), {stage.name: stage.Config for stage in GRAPH}
        )
        Runner(config, GRAPH, Console()).run(Request())
    return folder


def _values() -> dict[str, Any]:
    sources = {
        role: {
            "role": role,
            "source": {"name": "folder", "images": f"{role}/images", "masks": f"{role}/masks"},
        }
        for role in COUNTS
    }
    roles, labelers = ["ood", "unlabeled"], {"truth": "files"}
    return {
        "run": "moves",
        "workspace": "work",
        "data": "data",
        "vocabulary": "vocabulary.yaml",
        "ingest": {"shard_size": SHARD_SIZE, "sources": sources},
        "pseudolabel": {"size_px": 32, "roles": roles, "labelers": labelers},
    }


@pytest.fixture
def labeled(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    maskmill: Callable[..., CompletedProcess[str]],
) -> Labeled:
    """A copy of the labeled run; the working directory."""
    original = _labeled(tmp_path_factory.getbasetemp() / "labeled")
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    labeled = Labeled(tmp_path, Path("data"), _values(), maskmill)
    labeled.run("run ingest")  # the copies have other inodes
    return labeled
