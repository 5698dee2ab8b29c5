"""Writes the tiny SAM's folder: a config with its architecture, and its weights."""

import json
from pathlib import Path
from typing import Any

from stages.models.embedded.models import SAM
from tools.sandbox.training import save_half

CONFIG: dict[str, Any] = {
    "encoder": {
        "img_size": 128,
        "widths": [24, 48, 96, 160],
        "depths": [1, 1, 2, 2],
        "pyramid_width": 64,
        "embed_dim": 64,
    },
    "transformer": {
        "depth": 2,
        "num_heads": 1,
        "mlp_dim": 128,
        "attention_downsample_rate": 1,
    },
    "mask_in_chans": 16,
    "iou_head_hidden_dim": 64,
}
"""Arguments of the modules, by the modules' own names."""


def start(folder: Path) -> None:
    """Writes the config of an untrained SAM; creates the folder if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SAM.config_name).write_text(json.dumps(CONFIG, indent=2) + "\n")


def save(model: Any, folder: Path) -> None:
    """Writes the weights in half precision; integers keep their type."""
    save_half(folder / SAM.weights_name, model.state_dict())
