"""Runs in processes of their own that kill themselves in the midst of their writing."""

import multiprocessing
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.config import config as config_file
from pipeline.console import Console
from pipeline.engine.runner import Request, Runner
from pipeline.records.label_reader import LabelReader, StoredLabel
from pipeline.records.manifest import read
from pipeline.records.tables import IMAGES, PSEUDO_LABELS
from stages.graph import GRAPH

# Forked from one that has imported all there is to import, but started no thread.
_FORKS = multiprocessing.get_context("forkserver")
_PRELOADED = [
    *("stages.pseudolabel.work", "stages.evaluate.scoring", "stages.report.page"),
    *("stages.report.pictures", "distributed", "zarr", __name__),
]
_FORKS.set_forkserver_preload(_PRELOADED)
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
_DEADLINE_S = 120


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        code: Exit code; -9 after a kill.
        changes: How many changes to files it made in its workspace, of those that Python sees.
    """

    code: int
    changes: int


def run(config: Path, kill_at: int | None = None) -> Outcome:
    """`maskmill run`; just before the change of that number it is killed, as by kill -9."""
    receiver, sender = _FORKS.Pipe(duplex=False)
    process = _FORKS.Process(target=_run, args=(config, kill_at, sender))
    process.start()
    sender.close()
    process.join(_DEADLINE_S)
    assert process.exitcode is not None, "the run hangs"
    changes = receiver.recv() if process.exitcode == 0 else 0
    return Outcome(process.exitcode, changes)


def _run(config: Path, kill_at: int | None, sender: Any) -> None:
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    loaded = config_file.load(config, {stage.name: stage.Config for stage in GRAPH})
    workspace, changes = str(loaded.run.workspace.absolute()), 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal changes
        opens = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
        if (opens or event in _CHANGES) and str(arguments[0]).startswith(workspace):
            changes += 1
            if changes == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    Runner(loaded, GRAPH, Console()).run(Request())
    sender.send(changes)


def images(config: Path) -> pd.DataFrame:
    """Rows of the images manifest that are still listed."""
    loaded = config_file.load(config, {stage.name: stage.Config for stage in GRAPH})
    rows: pd.DataFrame = read(loaded.manifests / IMAGES.name, IMAGES).to_pandas()
    return rows[rows["status"] != "gone"]


def labels(config: Path) -> dict[tuple[str, str], tuple[str, bytes, bytes]]:
    """Status, mask and confidence of every pseudo-label, by labeler and image."""
    loaded = config_file.load(config, {stage.name: stage.Config for stage in GRAPH})
    found = {}
    for folder in sorted((loaded.manifests / PSEUDO_LABELS.name).glob("labeler=*")):
        rows = read(folder, PSEUDO_LABELS).to_pylist()
        for row in rows:
            mask, confidence = b"", b""
            if row["status"] == "ok":
                ((m, c),) = LabelReader().read([StoredLabel.of(loaded.run.workspace, row)])
                mask, confidence = m.tobytes(), c.tobytes()
            key = (folder.name, row["image_id"])
            assert key not in found, "two labels of one image"
            found[key] = (row["status"], mask, confidence)
    return found


def leftovers(workspace: Path) -> list[Path]:
    """Files that writers leave only when they are killed."""
    return [*workspace.rglob("*.tmp")]
