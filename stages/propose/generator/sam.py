"""SAM models: the published ones from their checkpoints, and the sandbox's."""

import textwrap
from pathlib import Path

import torch
from safetensors.torch import load_file
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam
from torch import Tensor

from pipeline.errors import WeightsError
from stages.propose.config import SANDBOX, SANDBOX_FOLDER


def load_sam(model: str, weights: Path | None) -> Sam:
    """Reads a SAM.

    Args:
        model: sandbox, or a name of `segment_anything.sam_model_registry`.
        weights: The checkpoint of the latter: plain tensors, .pth or .safetensors.

    Returns:
        The model in eval mode and float32, on the CPU.

    Raises:
        WeightsError: The file cannot be read, or is of another model.
    """
    if model == SANDBOX:
        from stages.sandbox import sam_folder

        return sam_folder.build(SANDBOX_FOLDER)
    assert weights is not None
    sam: Sam = sam_model_registry[model]()
    try:
        sam.load_state_dict(_read(weights))
    except Exception as error:  # a broken file can fail anywhere in the readers
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 160)
        fix = f"use segment_anything's checkpoint of {model}, or set `model` to what the file is of"
        where = f"propose.weights: {weights}"
        raise WeightsError(f"no weights of {model}: {reason}", where=where, fix=fix) from error
    return sam.eval()


def _read(weights: Path) -> dict[str, Tensor]:
    if weights.suffix == ".safetensors":
        return load_file(weights)
    tensors: dict[str, Tensor] = torch.load(weights, map_location="cpu", weights_only=True)
    return tensors
