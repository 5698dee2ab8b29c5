"""Loading SED by the names that its official checkpoints use, and nothing missing or left over."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.errors import WeightsError
from stages.models.clip.clip import Clip, model_config, tokenizer_of
from stages.pseudolabel.sed.network import Sed

PREFIX = "sem_seg_head.predictor."
"""What the names of a checkpoint's tensors begin with."""

_WRAPPER = "model"
_STEM = "clip_model.visual.trunk.stem.0.weight"
_ARCHITECTURES = {128: "convnext_base_w_320", 192: "convnext_large_d_320"}


def build(model: str) -> Sed:
    """SED on a CLIP, with random weights.

    Args:
        model: An architecture that open_clip knows, or local-dir:FOLDER.

    Raises:
        ConfigError: There is no such architecture, or it is no ConvNeXt.
        WeightsError: The folder is not in open_clip's layout.
    """
    config = model_config(model)
    # Not by open_clip's `create_model`, which warns that there are no weights.
    return Sed(open_clip.CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"]))


def load_sed(model: str, weights: Path, device: torch.device) -> tuple[Sed, Clip]:
    """SED with the weights of a checkpoint, and the CLIP in it, which embeds texts.

    Args:
        model: See `build`.
        weights: A file as detectron2 saves it, where other entries than `model` (optimizer,
            scheduler, iteration) go unread; or the tensors alone, also as .safetensors.
        device: Where they will run.

    Returns:
        Both in eval mode and float32.

    Raises:
        ConfigError: See `build`.
        WeightsError: The file cannot be read, or is not of this model.
    """
    network = build(model)
    tensors = _tensors(weights)
    if difference := differences(network.state_dict(), tensors):
        stem = tensors.get(_STEM)
        name = None if stem is None else _ARCHITECTURES.get(stem.shape[0])
        fix = "use a checkpoint of SED" if name in (None, model) else f"set `model: {name}`"
        what = f"no weights of SED on {model}: {difference}"
        raise WeightsError(what, where=f"weights: {weights}", fix=fix)
    network.load_state_dict(tensors)
    network.eval().requires_grad_(False).to(device)
    if device.type == "cuda":
        network.to(memory_format=torch.channels_last)  # the layout that tensor cores convolve in
    mean, std = (
        torch.tensor(value, device=device)[:, None, None]
        for value in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    return network, Clip(network.clip_model, tokenizer_of(model, model_config(model)), mean, std)


def differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    """How a checkpoint differs from a model in names and shapes: a few words, None for not at all.

    Nothing may be missing, and nothing is ignored: all that SED keeps in its checkpoints is used.
    """
    shapes = {name for name in expected.keys() & found if expected[name].shape != found[name].shape}
    kinds = {
        "missing": expected.keys() - found.keys(),
        "not of it": found.keys() - expected.keys(),
        "of another shape": shapes,
    }
    told = [
        f"{len(names)} tensors {kind}, such as {min(names)}"
        for kind, names in kinds.items()
        if names
    ]
    return "; ".join(told) or None


def _tensors(weights: Path) -> dict[str, Tensor]:
    """Tensors by name, without the prefix."""
    try:
        if weights.suffix == ".safetensors":
            read: dict[str, Any] = load_file(weights)
        else:
            # Mapped: of a checkpoint with an optimizer half would be read for nothing.
            read = torch.load(weights, map_location="cpu", weights_only=True, mmap=True)
            read = read.get(_WRAPPER, read)
        return {name.removeprefix(PREFIX): tensor.float() for name, tensor in read.items()}
    except Exception as error:  # a broken file can fail anywhere in the readers
        what = f"cannot be read as plain tensors: {_reason(error)}"
        fix = "use an official checkpoint, or save the tensors of its `model` as .safetensors"
        raise WeightsError(what, where=f"weights: {weights}", fix=fix) from error


def _reason(error: Exception) -> str:
    return textwrap.shorten(f"{type(error).__name__}: {error}", 160)
