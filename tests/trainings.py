"""Finds the files of trainings."""

from pathlib import Path


def training_folder(workspace: Path, variant: str, run: str = "tiny", seed: int = 0) -> Path:
    """The folder of a variant's training, of which there has been only one."""
    (folder,) = (workspace / "artifacts" / run / "checkpoints" / variant / f"seed-{seed}").iterdir()
    return folder
