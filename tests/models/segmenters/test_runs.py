"""Networks in whole runs."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pandas as pd
import pytest

Call = Callable[..., CompletedProcess[str]]


@pytest.mark.slow
def test_each_network_trains_and_is_scored(
    tiny_run: dict[str, Any],
    maskmill: Call,
    write_config: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """And a concept makes the one stale whose decoder asks for it."""
    done = maskmill("run", "--config", write_config(tiny_run))
    assert done.returncode == 0, done.stderr
    assert "randomly" not in done.stderr
    scores = pd.read_parquet(tmp_path / "workspace/manifests/tiny/metrics")
    scored = scores[scores["split"] == "val"]
    assert set(scored["variant"]) == set(tiny_run["train"]["variants"])
    assert "nothing to do" in maskmill("run", "--config", write_config(tiny_run)).stderr
    classes = [
        {"name": "background", "color": "#000000", "concepts": []},
        {"name": "disc", "color": "#ff0000", "concepts": ["plate"]},
        {"name": "box", "color": "#0000ff", "concepts": ["box", "square"]},
    ]
    printed = maskmill("status", "--config", write_config(tiny_run, classes=classes)).stdout
    assert "vocabulary.concepts.disc" in printed
    dry = maskmill("run", "train", "--dry-run", "--config", write_config(tiny_run, classes=classes))
    assert "semivl seed 0" in dry.stdout + dry.stderr
    assert "dpt seed 0" not in dry.stdout + dry.stderr
