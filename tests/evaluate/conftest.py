from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

Call = Callable[..., CompletedProcess[str]]


@pytest.fixture
def values(tiny: dict[str, Any]) -> dict[str, Any]:
    """A whole run: a labeler, two variants of a step each, evaluation."""
    clip = {"name": "dense_clip", "model": "sandbox", "window_px": 32, "stride_px": 32}
    stored = {"name": "stored", "labeler": "clip"}
    train = {
        "model": {"name": "small_unet", "encoder_weights": None},
        "perturbation": "unimatch",
        "crop_px": 32,
        "batch_size": 2,
        "steps": 1,
        "variants": {
            "plain": {"title": "Labeled only"},
            "web": {"label_sources": [stored]},
        },
    }
    pseudolabel = {"size_px": 32, "labelers": {"clip": clip}}
    return {**tiny, "pseudolabel": pseudolabel, "train": train, "evaluate": {}}


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    return tmp_path / "workspace/manifests/tiny"


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    return tmp_path / "workspace/artifacts/tiny"
