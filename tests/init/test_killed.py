"""A call of `label` that is killed at any moment, and made again, ends as an undisturbed one."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from maskmill.labeling import Request, label
from pipeline.console import Console
from tests.init.test_init import draw
from tests.killed_calls import call, content


@dataclass(frozen=True)
class Label:
    """Labels a folder of photos."""

    photos: Path

    def __call__(self, out: Path) -> None:
        label(Request(self.photos, out, "car, dog", "png,coco", allows_stand_in=True), Console())


def results(out: Path) -> dict[str, bytes]:
    """What a user takes away; below `run` times of day are recorded."""
    return {**content(out / "png"), **content(out / "coco")}


@pytest.mark.slow
def test_a_killed_call_goes_on(tmp_path: Path) -> None:
    for number in range(5):
        draw(tmp_path / f"photos/{number}.jpg", number)
    work = Label(tmp_path / "photos")
    changes = call(work, tmp_path / "whole")
    assert changes is not None
    whole = results(tmp_path / "whole")
    for kill_at in range(1, changes + 1, max(1, changes // 20)):
        out = tmp_path / f"out{kill_at}"
        assert call(work, out, kill_at) is None
        assert call(work, out) is not None
        found = results(out)
        marks = {name for name in whole if name.endswith(".maskmill.json")}
        assert found.keys() == whole.keys()
        assert {n: c for n, c in found.items() if n not in marks} == {
            n: c for n, c in whole.items() if n not in marks
        }
