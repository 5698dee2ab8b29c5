"""Finds the files of trainings."""

from pathlib import Path
from typing import Any


def training_folder(workspace: Path, variant: str, run: str = "tiny", seed: int = 0) -> Path:
    """The folder of a variant's training, of which there has been only one."""
    (folder,) = (workspace / "artifacts" / run / "checkpoints" / variant / f"seed-{seed}").iterdir()
    return folder


def run_folder(values: dict[str, Any], kind: str) -> Path:
    """The folder `manifests` or `artifacts` of the run "tiny" with this config."""
    return Path(values["workspace"]) / kind / "tiny"
