import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

WriteConfig = Callable[..., Path]
Call = Callable[..., CompletedProcess[str]]


@pytest.fixture
def values(tiny: dict[str, Any]) -> dict[str, Any]:
    """Two variants that need no labeler."""
    train = {
        "model": {"name": "small_unet", "encoder_weights": None},
        "perturbation": "unimatch",
        "crop_px": 32,
        "batch_size": 2,
        "steps": 2,
        "log_every": 1,
        "checkpoint_every": 1,
        "variants": {"plain": {}, "plus": {"label_sources": [{"name": "student"}]}},
    }
    return {**tiny, "train": train}


@pytest.fixture
def labeling(values: dict[str, Any]) -> dict[str, Any]:
    """The first variant, and one that learns from stored labels."""
    clip = {"name": "dense_clip", "model": "sandbox", "window_px": 32, "stride_px": 32}
    stored = {"name": "stored", "labeler": "clip"}
    values = deepcopy(values)
    values["pseudolabel"] = {"size_px": 32, "labelers": {"clip": clip}}
    values["train"]["variants"] = {"plain": {}, "ood": {"label_sources": [stored]}}
    return values


@pytest.fixture
def reasons(call: Call) -> Callable[..., list[str]]:
    """Why train is not fresh, after overrides."""

    def ask(config: Path, *overrides: str) -> list[str]:
        result = call("status --json", config, *overrides)
        assert result.returncode == 0, result.stderr
        (train,) = (s for s in json.loads(result.stdout)["stages"] if s["name"] == "train")
        found: list[str] = train["reasons"]
        assert (train["state"] == "fresh") == (not found)
        return found

    return ask
