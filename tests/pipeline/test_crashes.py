"""After kill -9 anywhere, and after a full disk, the next run ends like an undisturbed one."""

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tests.pipeline.killing import images, labels, leftovers, run

NOT_EQUAL = ["stamp", "mask_stamp"]


@pytest.fixture
def beside(tmp_path: Path, stage_one: dict[str, Any], write_config: Callable[..., Path]) -> Any:
    """Writes the config with a workspace of another name: ``beside("first")``."""

    def write(name: str, **pseudolabel: Any) -> Path:
        write_config(stage_one)
        section = {**stage_one["pseudolabel"], **pseudolabel}
        own = {**stage_one, "workspace": str(tmp_path / name), "pseudolabel": section}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(own))
        return path

    return write


def assert_equal(found: Path, expected: Path) -> None:
    """Equal rows, masks and confidences; nothing left over."""
    columns = images(expected).columns.drop(NOT_EQUAL)
    pd.testing.assert_frame_equal(images(found)[columns], images(expected)[columns])
    assert labels(found) == labels(expected)
    assert leftovers(found.with_suffix("")) == []


def test_a_run_that_is_killed_anywhere_is_finished_by_the_next(
    beside: Callable[..., Path],
) -> None:
    undisturbed = beside("undisturbed")
    whole = run(undisturbed)
    assert whole.code == 0
    assert whole.changes > 30
    for kill_at in range(2, whole.changes, whole.changes // 3):
        config = beside(f"killed-{kill_at}")
        assert run(config, kill_at).code == -9
        assert run(config).code == 0
        assert_equal(config, undisturbed)


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_change_is_finished_by_the_next(
    beside: Callable[..., Path],
) -> None:
    undisturbed = beside("undisturbed")
    for kill_at in range(1, run(undisturbed).changes + 1):
        config = beside(f"killed-{kill_at}")
        assert run(config, kill_at).code == -9
        assert run(config).code == 0
        assert_equal(config, undisturbed)


def test_a_change_that_is_killed_midway_is_finished_or_taken_back(
    beside: Callable[..., Path], data: Path
) -> None:
    """An image changes, the shard is half replaced, then the image is as it was."""
    config, undisturbed = beside("killed"), beside("undisturbed")
    assert run(undisturbed).code == 0
    image = data / "labeled/images/0.png"
    before = image.read_bytes()
    for kill_at in (4, 8, 12, 16):
        assert run(config).code == 0
        image.write_bytes((data / "unlabeled/images/0.png").read_bytes())
        run(config, kill_at)
        image.write_bytes(before)
        assert run(config).code == 0
        assert_equal(config, undisturbed)


def test_a_file_that_cannot_grow_is_reported_and_repaired(beside: Callable[..., Path]) -> None:
    """A limit on the size of files, as quotas have them, in a process of its own."""
    config, undisturbed = beside("limited"), beside("undisturbed")
    assert run(undisturbed).code == 0

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))

    command = [sys.executable, "-m", "maskmill", "run", "--config", str(config)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, preexec_fn=limit, cwd=Path.cwd()
    )
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: {config.with_suffix('')}/"), last
    assert "File too large; " in last
    assert run(config).code == 0
    assert_equal(config, undisturbed)
