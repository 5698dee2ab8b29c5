from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

Call = Callable[..., CompletedProcess[str]]


@pytest.fixture
def values(tiny: dict[str, Any], clip_folder: Callable[[str], Path]) -> dict[str, Any]:
    """Two labelers over the two labeled images, and over two web images in a shard of their own."""
    model = f"local-dir:{clip_folder('vit')}"
    clip = {"name": "dense_clip", "model": model, "window_px": 32, "stride_px": 16}
    labelers = {"clip": clip, "truth": "files"}
    return {**tiny, "pseudolabel": {"size_px": 48, "labelers": labelers}}


@pytest.fixture
def call(call: Call, values: dict[str, Any], write_config: Callable[..., Path]) -> Call:
    """The command line with the config as it is by now: ``call("run", "run=other")``."""

    def command(verb: str, *overrides: str, code: int = 0) -> CompletedProcess[str]:
        return call(verb, write_config(values), *overrides, code=code)

    return command


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    return tmp_path / "workspace/manifests/tiny"
