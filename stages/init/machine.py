"""What this machine can run: the weights that are on its disk, and how large a network may be."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from stages.init.places import near

_REPOSITORY = "timm/vit_base_patch16_clip_224.openai"
_FILE = "open_clip_model.safetensors"


@dataclass(frozen=True)
class ClipWeights:
    """The CLIP that labels.

    Attributes:
        model: The architecture of open_clip.
        weights: Tag, or path from the config's folder.
        is_there: Whether nothing has to be fetched.
        why: Where it was found, or how to get it, for the config's comment.
    """

    model: str
    weights: str
    is_there: bool
    why: str


@dataclass(frozen=True)
class Training:
    """The keys of `train` that suit this machine.

    Attributes:
        keys: Keys and their values; a preset has the others.
        why: The reason, for the config's comment.
    """

    keys: dict[str, object]
    why: str


def clip_weights(folder: Path) -> ClipWeights:
    """Looks for the weights of OpenAI's ViT-B/16: in ./weights, and in the hub's cache.

    Args:
        folder: The folder of the config.
    """
    local = Path("weights", _FILE)
    spelled = near(local, folder)
    if local.is_file():
        return ClipWeights("ViT-B-16-quickgelu", spelled, True, f"found at {local}")
    if isinstance(try_to_load_from_cache(_REPOSITORY, _FILE), str):
        return ClipWeights("ViT-B-16", "openai", True, "found in the cache of the Hugging Face hub")
    command = f"hf download {_REPOSITORY} {_FILE} --local-dir weights"
    return ClipWeights("ViT-B-16-quickgelu", spelled, False, f"fetch it, 300 MB: {command}")


def training(preset: str | None, short_side_px: int) -> Training:
    """Chooses a network and a length.

    Args:
        preset: The one that was asked for, which is taken as it is.
        short_side_px: The median short side of the labeled images.
    """
    import torch

    if preset is not None:
        return Training({"preset": preset}, f"{preset}, as asked for, with its published keys")
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        why = f"{name}: UniMatch's own network, pretrained on ImageNet, and its schedule"
        return Training({"preset": "unimatch", "precision": "bfloat16"}, why)
    crop_px = 64
    side_px = min(80, short_side_px)
    keys: dict[str, object] = {
        "preset": "classmix",
        "model": {"name": "small_unet", "encoder_weights": None},
        "perturbation": {"separate_domains": True},
        "crop_px": crop_px,
        "short_side_px": side_px,
        "scale": [0.8, 2.0],
        "batch_size": 4,
        "steps": 2000,
        "optimizer": "adamw",
        "learning_rate": 0.002,
        "decoder_multiplier": 1,
        "ema_decay": 0.99,
    }
    cores = os.cpu_count()
    why = (
        f"no GPU, {cores} cores: a small network on images scaled to a short side of {side_px} px, "
        "for minutes. It shows that all works; for a good model train on a GPU with the keys from "
        "`model` to `ema_decay` removed, and `evaluate.short_side_px` too"
    )
    return Training(keys, why)
