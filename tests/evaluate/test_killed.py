"""After kill -9 anywhere in evaluate and report, the next run ends like an undisturbed one."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.records.part_file import read_facts
from tests.finished_run import CONFIG, not_fresh, stamps, written
from tests.pipeline import killing

Write = Callable[..., Path]
Begin = Callable[[], None]
TABLES = ("metrics", "confusion", "report")
KEYS = {
    "metrics": ["kind", "variant", "seed", "split", "name", "step"],
    "confusion": ["kind", "variant", "seed", "split", "true_id", "predicted_id"],
    "report": ["file"],
}


@pytest.fixture(params=[pytest.param("first scores", marks=pytest.mark.slow), "other scores"])
def begin(
    request: pytest.FixtureRequest, run_folder: Path, values: dict[str, Any], write: Write
) -> Begin:
    """Brings the workspace to where all scores, pictures and the page are to be made.

    As first ones, or in place of those of another protocol and another color.
    """
    values["workspace"] = str(run_folder / "workspace")  # changes below it are counted
    if request.param == "first scores":
        for folder in (
            "manifests/tiny/confusion",
            "manifests/tiny/report",
            "artifacts/tiny/report",
        ):
            shutil.rmtree(Path("workspace", folder))
        for part in Path("workspace/manifests/tiny/metrics").glob("part-score-*"):
            part.unlink()
        write(values)
    else:
        values["evaluate"] = {"flip": True}
        write(values, name="other shapes")
    shutil.copytree("workspace", "begun", copy_function=shutil.copy2)

    def begin() -> None:
        shutil.rmtree("workspace")
        shutil.copytree("begun", "workspace", copy_function=shutil.copy2)

    return begin


def read(manifests: Path) -> dict[str, pd.DataFrame]:
    """Every table as a user reads it, torn nowhere; no two rows of one thing."""
    found = {}
    for name in TABLES:
        if [*(manifests / name).glob("part-*")]:
            found[name] = pd.read_parquet(manifests / name)
            assert not found[name].duplicated(KEYS[name]).any()
    return found


class Undisturbed:
    """An undisturbed run, to compare others with.

    Attributes:
        changes: Number of its changes to files.
        facts: Of every score, by part.
        tables: As a user reads them.
        report: Bytes of the page and its pictures.
    """

    def __init__(self, manifests: Path, artifacts: Path) -> None:
        self._manifests, self._report = manifests, artifacts / "report"
        done = killing.run(CONFIG)
        assert done.code == 0
        self.changes = done.changes
        self.facts = self._read_facts()
        self.tables = read(manifests)
        self.report = self._read_report()

    def assert_finishes(self, kill_at: int) -> int:
        """Kills a run, then finishes it; returns how many scores the killed one had finished."""
        assert killing.run(CONFIG, kill_at).code == -9
        read(self._manifests)
        facts = self._read_facts()
        finished = {name for name, own in facts.items() if own == self.facts.get(name)}
        whole = {
            name
            for name in finished
            if name.startswith("metrics/") and name.replace("metrics", "confusion") in finished
        }
        assert len(not_fresh().get("evaluate", ())) == len(self.facts) // 2 - len(whole)
        before = stamps(self._manifests)
        assert killing.run(CONFIG).code == 0
        again = written(before, self._manifests)
        assert not again & {*whole, *(name.replace("metrics", "confusion") for name in whole)}
        found = read(self._manifests)
        for name in TABLES:
            pd.testing.assert_frame_equal(found[name], self.tables[name])
        assert self._read_report() == self.report
        assert not_fresh() == {}
        assert killing.leftovers(Path("workspace")) == []
        return len(whole)

    def _read_facts(self) -> dict[str, Any]:
        parts = self._manifests.glob("*/part-score-*.parquet")
        return {str(part.relative_to(self._manifests)): read_facts(part) for part in parts}

    def _read_report(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self._report.iterdir()}


def test_a_run_that_is_killed_midway_is_finished_by_the_next(
    begin: Begin, manifests: Path, artifacts: Path
) -> None:
    undisturbed = Undisturbed(manifests, artifacts)
    assert undisturbed.changes > 30
    finished = set()
    for kill_at in range(5, undisturbed.changes, 2 * undisturbed.changes // 5):
        begin()
        finished.add(undisturbed.assert_finishes(kill_at))
    assert len(finished) > 1


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_change_is_finished_by_the_next(
    begin: Begin, manifests: Path, artifacts: Path
) -> None:
    undisturbed = Undisturbed(manifests, artifacts)
    finished = set()
    for kill_at in range(1, undisturbed.changes + 1):
        begin()
        finished.add(undisturbed.assert_finishes(kill_at))
    assert len(finished) > 4
