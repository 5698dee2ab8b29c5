"""After kill -9 anywhere a training goes on, and ends with the very same bytes."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from tests.pipeline.killing import leftovers, run
from tests.trainings import training_folder

STEPS = 4


@pytest.fixture
def begun(
    tmp_path: Path,
    tiny: dict[str, Any],
    write_config: Callable[..., Path],
    maskmill: Callable[..., CompletedProcess[str]],
) -> Callable[[str], Path]:
    """A config with a workspace of its own, where only the training is to be done."""
    train = {
        "model": {"name": "small_unet", "encoder_weights": None},
        "perturbation": "unimatch",
        "label_sources": [{"name": "ema", "threshold": 0.4}, {"name": "student", "on": "ood"}],
        "crop_px": 32,
        "batch_size": 2,
        "accumulate": 2,
        "clip_norm": 1.0,
        "steps": STEPS,
        "optimizer": "adamw",
        "validate_every": 1,
        "log_every": 1,
        "checkpoint_every": 1,
    }

    def begin(name: str) -> Path:
        write_config(tiny)
        path = tmp_path / f"{name}.yaml"
        own = {**tiny, "workspace": str(tmp_path / name), "train": train}
        path.write_text(yaml.safe_dump(own))
        assert maskmill("run", "ingest", "--config", path).returncode == 0
        return path

    return begin


def assert_equal(found: Path, expected: Path) -> None:
    own, other = (
        training_folder(config.with_suffix(""), "default") for config in (found, expected)
    )
    for name in ("model.safetensors", "best.safetensors", "log.jsonl"):
        assert (own / name).read_bytes() == (other / name).read_bytes()
    rows, expected_rows = (
        pd.read_parquet(c.with_suffix("") / "manifests/tiny/metrics") for c in (found, expected)
    )
    pd.testing.assert_frame_equal(rows, expected_rows)
    assert leftovers(found.with_suffix("")) == []


def kill_and_finish(config: Path, kill_at: int) -> int:
    """Steps that the killed run had saved."""
    assert run(config, kill_at).code == -9
    states = [*config.with_suffix("").rglob("last.pt")]
    saved = torch.load(states[0], weights_only=True)["step"] if states else 0
    assert run(config).code == 0
    return int(saved)


@pytest.mark.slow
def test_a_training_that_is_killed_midway_ends_as_an_undisturbed_one(
    begun: Callable[[str], Path],
) -> None:
    undisturbed = begun("undisturbed")
    whole = run(undisturbed)
    assert whole.code == 0
    config = begun("killed")
    assert 0 < kill_and_finish(config, whole.changes // 2) < STEPS
    assert_equal(config, undisturbed)


@pytest.mark.slow
def test_a_training_that_is_killed_at_any_change_ends_as_an_undisturbed_one(
    begun: Callable[[str], Path],
) -> None:
    undisturbed = begun("undisturbed")
    saved = set()
    for kill_at in range(1, run(undisturbed).changes + 1):
        config = begun(f"killed-{kill_at}")
        saved.add(kill_and_finish(config, kill_at))
        assert_equal(config, undisturbed)
    assert saved == {*range(STEPS + 1)}
