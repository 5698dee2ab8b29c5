"""Maskmill: turns web images into training labels, and training labels into a segmenter.

The command line is in `maskmill.cli`. Importing this package imports nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskmill.model import Model
    from maskmill.run import Run

__version__ = "0.1.0"
__all__ = ["load", "open"]


def open(config: str | Path | None = None, overrides: Sequence[str] = ()) -> Run:
    """Opens a run to look at it: tables, stored labels, pictures. Nothing is computed.

    Args:
        config: Its YAML file; default: maskmill.yaml or configs/sandbox.yaml in the current folder,
            else the sandbox's that comes with Maskmill.
        overrides: Keys of the config to override, as with `--set`: "train.steps=400".

    Raises:
        pipeline.errors.ConfigError: The config is missing or wrong.
    """
    from maskmill.run import Run

    return Run(None if config is None else Path(config), overrides)


def load(model: str | Path, device: str = "auto") -> Model:
    """Loads a trained network that predicts images.

    Args:
        model: A model file: model.safetensors of a training.
        device: cpu, cuda, mps, or auto.

    Raises:
        pipeline.errors.WeightsError: The file is missing, damaged, or of another version.
    """
    from maskmill.model import Model

    return Model(Path(model), device)
