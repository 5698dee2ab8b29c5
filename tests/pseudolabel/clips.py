"""Loads the small CLIPs of the fixture `clip_folder`."""

from pathlib import Path
from typing import Any

import torch

from stages.models.clip.clip import Clip, load_clip

CPU = torch.device("cpu")


def load(folder: Path, window_px: int, **options: Any) -> Clip:
    weights = folder / "open_clip_model.safetensors"
    return load_clip(folder, weights, window_px=window_px, device=CPU, **options)
