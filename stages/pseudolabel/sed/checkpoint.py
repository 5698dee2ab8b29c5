"""Loads SED from its official checkpoints; every tensor must match."""

from collections.abc import Mapping
from pathlib import Path

import open_clip
import torch
from torch import Tensor

from pipeline.errors import WeightsError
from stages.models.checkpoint_file import NotTensorsError, read_checkpoint
from stages.models.clip.architectures import model_config
from stages.models.clip.clip import Clip, tokenizer_of
from stages.models.finite import finite_weights
from stages.pseudolabel.sed.network import Sed

PREFIX = "sem_seg_head.predictor."
"""Prefix of the tensor names in a checkpoint."""

_BUFFERS = ("pixel_mean", "pixel_std", "attn_mask")
"""Buffers of detectron2 and open_clip that some checkpoints hold; they are no weights."""
_HEADS = ("transformer.head0.", "transformer.head1.", "transformer.head2.")
"""Prefixes of the auxiliary heads, which only the mode `fast` uses."""
_STEM = "clip_model.visual.trunk.stem.0.weight"
_ARCHITECTURES = {128: "convnext_base_w_320", 192: "convnext_large_d_320"}


def build(model: str) -> Sed:
    """Builds SED on a CLIP, with random weights.

    Args:
        model: An architecture of open_clip, or local-dir:FOLDER.

    Raises:
        ConfigError: The architecture is unknown, or not a ConvNeXt.
        WeightsError: The folder does not have open_clip's layout.
    """
    config = model_config(model)
    # open_clip's `create_model` would warn that there are no weights.
    return Sed(open_clip.CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"]))


def load_sed(
    model: str, weights: Path, device: torch.device, *, needs_heads: bool = True
) -> tuple[Sed, Clip]:
    """Loads SED from a checkpoint, with the CLIP inside it, which embeds texts.

    Args:
        model: See `build`.
        weights: A checkpoint of detectron2, of which only the entry `model` is read, or a file
            of only the tensors, also as .safetensors.
        device: The device of both networks.
        needs_heads: Whether the auxiliary heads must be there, as the mode `fast` needs them.

    Returns:
        Both networks in eval mode and float32.

    Raises:
        ConfigError: See `build`.
        WeightsError: The file cannot be read, or belongs to another model.
    """
    network = build(model)
    tensors = _tensors(weights)
    own = network.state_dict()
    if not needs_heads:
        tensors |= {n: own[n] for n in own.keys() - tensors.keys() if n.startswith(_HEADS)}
    if difference := checkpoint_diff(own, tensors):
        stem = tensors.get(_STEM)
        name = None if stem is None else _ARCHITECTURES.get(stem.shape[0])
        fix = "use a SED checkpoint" if name in (None, model) else f"set `model: {name}`"
        what = f"not a checkpoint of SED with {model}: {difference}"
        raise WeightsError(what, where=f"weights: {weights}", fix=fix)
    network.load_state_dict(tensors)
    network.eval().requires_grad_(False).to(device)
    if device.type == "cuda":
        network.to(memory_format=torch.channels_last)  # faster on tensor cores
    mean, std = (
        torch.tensor(value, device=device)[:, None, None]
        for value in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    return network, Clip(network.clip_model, tokenizer_of(model, model_config(model)), mean, std)


def checkpoint_diff(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    """Describes how the names and shapes of a checkpoint differ from a model's; None if equal.

    Unknown tensors count too: SED uses every tensor of its checkpoints.
    """
    shapes = {name for name in expected.keys() & found if expected[name].shape != found[name].shape}
    kinds = {
        "missing": expected.keys() - found.keys(),
        "unknown": found.keys() - expected.keys(),
        "with the wrong shape": shapes,
    }
    found_kinds = [
        f"{len(names)} tensors {kind}, such as {min(names)}"
        for kind, names in kinds.items()
        if names
    ]
    return "; ".join(found_kinds) or None


def _tensors(weights: Path) -> dict[str, Tensor]:
    """Reads the tensors by name, without the prefix, and without what is not SED's own."""
    try:
        read = read_checkpoint(weights).tensors
    except (NotTensorsError, OSError) as error:
        what = f"cannot be read as plain tensors: {error}"
        fix = "use an official checkpoint, or save the tensors of its `model` as .safetensors"
        raise WeightsError(what, where=f"weights: {weights}", fix=fix) from error
    tensors = {
        name.removeprefix(PREFIX): tensor.float()
        for name, tensor in read.items()
        if not name.endswith(_BUFFERS)
    }
    return finite_weights(tensors, f"weights: {weights}")
