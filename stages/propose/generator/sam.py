"""Loads SAM: the published models from their checkpoints, or the sandbox's."""

from pathlib import Path

from segment_anything import sam_model_registry
from segment_anything.modeling import Sam

from pipeline.errors import WeightsError
from stages.models.checkpoint_file import NotTensorsError, one_line, read_checkpoint
from stages.models.embedded.models import SAM, SANDBOX
from stages.models.finite import finite_weights


def load_sam(model: str, weights: Path | None) -> Sam:
    """Loads a SAM.

    Args:
        model: sandbox, or a name in `segment_anything.sam_model_registry`.
        weights: The checkpoint, plain tensors in .pth or .safetensors; None for sandbox.

    Returns:
        The model in eval mode and float32, on the CPU.

    Raises:
        WeightsError: The file cannot be read, or belongs to another model.
    """
    if model == SANDBOX:
        from stages.models.embedded import sam_network

        return sam_network.build(SAM.folder)
    assert weights is not None
    sam: Sam = sam_model_registry[model]()
    try:
        tensors = read_checkpoint(weights).tensors
        sam.load_state_dict(tensors)
    except (NotTensorsError, RuntimeError, OSError) as error:
        is_plain = isinstance(error, NotTensorsError)
        reason = str(error) if is_plain else one_line(error)
        fix = f"use segment_anything's checkpoint of {model}, or set `model` to what the file is of"
        where = f"propose.weights: {weights}"
        raise WeightsError(f"no weights of {model}: {reason}", where=where, fix=fix) from error
    finite_weights(tensors, f"propose.weights: {weights}")
    return sam.eval()
