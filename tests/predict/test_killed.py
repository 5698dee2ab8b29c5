"""A call that is killed at any moment, and made again, ends in the bytes of an undisturbed one."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.console import Console
from stages.predict.predict import Request, predict
from tests.killed_calls import call, content


@dataclass(frozen=True)
class Predict:
    """Predicts a folder of photos by a model."""

    photos: Path
    model: Path

    def __call__(self, out: Path) -> None:
        predict(Request([str(self.photos)], self.model, out, ["masks", "json"], "cpu"), Console())


@pytest.mark.parametrize("step", [45, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_call_goes_on(step: int, photos: Path, model: Path, tmp_path: Path) -> None:
    work = Predict(photos, model)
    changes = call(work, tmp_path / "whole")
    assert changes is not None
    whole = content(tmp_path / "whole")
    for kill_at in range(1, changes + 1, step):
        out = tmp_path / f"out{kill_at}"
        assert call(work, out, kill_at) is None
        assert call(work, out) is not None
        assert content(out) == whole
