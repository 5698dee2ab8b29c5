"""An export that is killed at any moment, and made again, ends in the bytes of another one."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from maskmill.cli.opened_run import opened_run
from pipeline.console import Console
from stages.export.export import export
from stages.export.run_labels import RunLabels
from tests.killed_calls import call, content


@dataclass(frozen=True)
class Export:
    """Exports all labels of a run."""

    config: Path
    form: str

    def __call__(self, out: Path) -> None:
        with opened_run(self.config, ()) as config:
            labels = RunLabels(config, None, ["labeled", "val", "ood"], 0, None)
            export(labels, self.form, out, Console())


@pytest.mark.parametrize(
    ("form", "step"),
    [
        ("png", 60),
        *(
            pytest.param(form, 7, marks=pytest.mark.slow)
            for form in ("png", "coco", "datasets", "webdataset", "label_studio")
        ),
    ],
)
def test_a_killed_export_goes_on(form: str, step: int, run: Path, tmp_path: Path) -> None:
    work = Export(run, form)
    changes = call(work, tmp_path / "whole")
    assert changes is not None
    whole = content(tmp_path / "whole")
    for kill_at in range(1, changes + 1, step):
        out = tmp_path / f"out{kill_at}"
        assert call(work, out, kill_at) is None
        assert call(work, out) is not None
        assert content(out) == whole
