"""Loads CLIP models of open_clip and computes features of images, locations and texts."""

import difflib
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import open_clip
import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional as F

from pipeline.console import Console
from pipeline.errors import ConfigError, WeightsError
from pipeline.files.checksum import digest
from stages.models.clip import towers
from stages.models.clip.clip_weights import MASKCLIP, Dense
from stages.models.embedded import trunk
from stages.models.finite import finite_weights

_HUB_FILE = "open_clip_model.safetensors"
_NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}
"""The smallest text encoder, for networks that need none."""


@dataclass(frozen=True)
class Clip:
    """A CLIP in evaluation mode; its text encoder computes in float32.

    Attributes:
        network: open_clip's CLIP, or its CustomTextCLIP.
        tokenizer: Maps prompts to (N, context length) int64 tokens; open_clip's.
        mean: (3, 1, 1) float, channel means of its training images in [0, 1].
        std: (3, 1, 1) float, their standard deviations.
        precision: Number format of its image encoder.
    """

    network: open_clip.CLIP
    tokenizer: Callable[..., Tensor]
    mean: Tensor
    std: Tensor
    precision: torch.dtype = torch.float32

    @property
    def logit_scale(self) -> float:
        """Factor on cosines before the softmax, as the model learned it."""
        return float(self.network.logit_scale.exp())

    def normalize(self, images: Tensor) -> Tensor:
        """Normalises (..., 3, H, W) uint8 images as in the network's training, to float."""
        return (images.float() / 255 - self.mean) / self.std

    def encode_text(self, prompts: Sequence[str], *, normalize: bool = True) -> Tensor:
        """Embeds prompts, (N, D) float, of length 1 unless `normalize` is False.

        Raises:
            ConfigError: A prompt has more tokens than the model reads.
        """
        tokens = self.tokenizer(list(prompts))
        self._check_whole(prompts, tokens)
        tokens = tokens.to(self.mean.device)
        embeddings: Tensor = self.network.encode_text(tokens, normalize=normalize)
        return embeddings

    def _check_whole(self, prompts: Sequence[str], tokens: Tensor) -> None:
        """Raises an error for a prompt that the tokenizer cuts: its meaning could change."""
        limit = tokens.shape[1]
        with_room = self.tokenizer(list(prompts), context_length=limit + 1)[:, :limit]
        for prompt, is_cut in zip(prompts, (tokens != with_room).any(1).tolist(), strict=True):
            if is_cut:
                what = f"the prompt {prompt!r} is longer than the model's {limit} tokens"
                raise ConfigError(what, where="vocabulary", fix="shorten the concept or template")

    def encode_images(self, images: Tensor) -> Tensor:
        """Embeds (B, 3, S, S) float, normalised, S `towers.whole_px`, as (B, D) of length 1."""
        embeddings = self.network.encode_image(images.to(self.precision))
        return F.normalize(embeddings.float(), dim=-1)

    def dense_features(self, windows: Tensor, dense: Dense = MASKCLIP) -> Tensor:
        """Computes a feature for each location, comparable with texts, without training.

        Args:
            windows: (B, 3, H, W) float, normalised.
            dense: The variant of attention.

        Returns:
            (B, D, h, w) float32 of length 1 over D, at the resolution of the last feature map.
        """
        features = towers.dense_features(self.network.visual, windows.to(self.precision), dense)
        return F.normalize(features.float(), dim=1)


def load_clip(
    model: str | Path,
    weights: str | Path,
    *,
    window_px: int,
    device: torch.device,
    dense: Dense = MASKCLIP,
    precision: torch.dtype = torch.float32,
) -> Clip:
    """Loads a model whose image encoder sees squares of a given size.

    Position embeddings of a vision transformer are resized bicubically to that size.

    Args:
        model: An architecture of open_clip, or a folder in its layout.
        weights: A checkpoint file, or an architecture's tag, which is downloaded if needed.
        window_px: Side of the images.
        device: The device to run on.
        dense: The variant of attention that it must support.
        precision: Number format of its image encoder.

    Raises:
        ConfigError: The model or tag is unknown, or does not support the size or the variant.
        WeightsError: The weights cannot be downloaded or read, or belong to another model.
    """
    trunk.register()
    name = f"local-dir:{model}" if isinstance(model, Path) else model
    where = f"model: {name}" if isinstance(model, Path) else f"weights: {weights}"
    config = model_config(name)
    options: dict[str, Any] = {}
    if isinstance(weights, str):
        tag = _tag(name, weights)
        # open_clip only warns if the architecture has another activation than the tag.
        options["force_quick_gelu"] = tag.get("quick_gelu", False)
        options["force_preprocess_cfg"] = {"mean": tag["mean"], "std": tag["std"]}
        weights = fetch_tag(name, weights)
    if isinstance(model, str):  # in a folder, open_clip finds the file
        options["pretrained"] = str(weights)
    vision = config["vision_cfg"]
    if "timm_model_name" not in vision and isinstance(vision["layers"], int):
        options["force_image_size"] = window_px
    _check_readable(weights, where)
    try:
        network = open_clip.create_model(name, **options).eval().requires_grad_(False)
        tokenizer = tokenizer_of(name, config)
    except Exception as error:  # open_clip raises many types for an unknown checkpoint
        architecture = "the folder's config" if isinstance(model, Path) else name
        what = f"the weights do not fit {architecture}: {_reason(error)}"
        fix = "set `model` to the architecture they were trained with"
        raise WeightsError(what, where=where, fix=fix) from error
    towers.check(network.visual, name, window_px, dense)
    mean, std = (
        torch.tensor(network.visual.preprocess_cfg[key], device=device)[:, None, None]
        for key in ("mean", "std")
    )
    network.to(device)
    network.visual = towers.prepared(network.visual, window_px, precision)
    finite_weights(network.state_dict(), where)  # after the precision, in which some may overflow
    return Clip(network, tokenizer, mean, std, precision)


def tower_config(model: str | Path, tag: str | None, window_px: int) -> dict[str, Any]:
    """The architecture of the image side that `load_clip` loads, as plain values for JSON.

    Args:
        model: An architecture of open_clip, or a folder in its layout, whose config is read.
        tag: Tag of the weights, which decides on the activation; None if they are a file.
        window_px: Side of the images.

    Raises:
        ConfigError: The model or tag is unknown.
        WeightsError: The folder is not in open_clip's layout.
    """
    trunk.register()
    name = f"local-dir:{model}" if isinstance(model, Path) else model
    config = model_config(name)
    vision = dict(config["vision_cfg"])
    if "timm_model_name" not in vision and isinstance(vision["layers"], int):
        vision["image_size"] = window_px
    quick_gelu = config.get("quick_gelu", False)
    if tag is not None:
        quick_gelu = quick_gelu or _tag(name, tag).get("quick_gelu", False)
    return {"embed_dim": config["embed_dim"], "vision_cfg": vision, "quick_gelu": quick_gelu}


def untrained_tower(config: Mapping[str, Any]) -> towers.Tower:
    """An image side with random weights, for a checkpoint to fill; reads and downloads nothing.

    Args:
        config: From `tower_config`.

    Raises:
        ConfigError: The architecture is timm's, which could download weights.
    """
    vision = config["vision_cfg"]
    if vision.get("timm_model_name"):
        what = "the image side is not of open_clip's own architectures"
        raise ConfigError(what, where="vision_cfg.timm_model_name", fix="use one such as ViT-B-16")
    # Not by open_clip's `create_model`, which warns that there are no weights.
    network = open_clip.CLIP(config["embed_dim"], vision, _NO_TEXT, quick_gelu=config["quick_gelu"])
    return network.visual


def model_config(name: str) -> dict[str, Any]:
    """open_clip's config of an architecture, or of local-dir:FOLDER.

    Raises:
        ConfigError: The architecture is unknown.
        WeightsError: The folder is not in open_clip's layout.
    """
    try:
        config: dict[str, Any] | None = open_clip.get_model_config(name)
    except (OSError, ValueError) as error:
        fix = "use a folder with open_clip_config.json, as open_clip saves it"
        raise WeightsError(_reason(error), where=f"model: {name}", fix=fix) from error
    if config is None:
        close = difflib.get_close_matches(name, open_clip.list_models(), n=1)
        fix = f"use an architecture such as {(close or ['ViT-B-16'])[0]}, or local-dir:FOLDER"
        raise ConfigError("open_clip has no such architecture", where=f"model: {name}", fix=fix)
    return config


def _tag(model: str, name: str) -> dict[str, Any]:
    tag: dict[str, Any] = open_clip.get_pretrained_cfg(model, name)
    if not tag:
        known = open_clip.list_pretrained_tags_by_model(model)
        fix = f"use one of {', '.join(known)}, or a checkpoint file" if known else "use a file"
        what = f"open_clip has no such weights of {model}"
        raise ConfigError(what, where=f"weights: {name}", fix=fix)
    return tag


def fetch_tag(model: str, name: str, console: Console | None = None) -> Path:
    """Downloads the weights of a tag, unless they are in the cache of the Hugging Face hub.

    Args:
        model: An architecture of open_clip.
        name: Of the tag.
        console: Shows that a download starts; on a terminal the hub's library draws its own bar.

    Returns:
        The file; it holds what was published, as far as the hub says what that was.

    Raises:
        ConfigError: There is no such model or tag.
        WeightsError: They cannot be downloaded, or are damaged.
    """
    model_config(model)
    tag = _tag(model, name)
    repository, _, file = tag["hf_hub"].rpartition("/")
    file = file or _HUB_FILE
    where = f"weights: {name}"
    try:
        if not huggingface_hub.try_to_load_from_cache(repository, file):
            # A single request first: offline, the hub's own retries take most of a minute.
            huggingface_hub.file_exists(repository, file)
            if console is not None:
                console.note(f"downloads {file} of {repository}")
        path = Path(open_clip.download_pretrained(tag))
    except Exception as error:  # its type depends on the versions of the hub and its http library
        quick = f"{model}-quickgelu"
        renamed = tag.get("quick_gelu") and quick in open_clip.list_models()
        fix = (
            f"where there is a connection, run `hf download {repository} {file} --local-dir "
            f"weights`, then set `model: {quick if renamed else model}` and "
            f"`weights: weights/{file}`"
        )
        what = f"cannot be downloaded ({_reason(error)})"
        raise WeightsError(what, where=where, fix=fix) from error
    blob = path.resolve()
    # In the hub's cache, the name of a large file is its published SHA-256.
    if re.fullmatch("[0-9a-f]{64}", blob.name) and digest(blob) != blob.name:
        path.unlink()
        blob.unlink()
        what = f"{path} differed from the published file and was deleted"
        raise WeightsError(what, where=where, fix="run again to download it")
    return path


def _check_readable(checkpoint: Path, where: str) -> None:
    """Raises an error for files other than plain tensors, which open_clip might unpickle."""
    try:
        if checkpoint.suffix == ".safetensors":
            with safe_open(checkpoint, framework="pt"):
                return
        torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise many types for a broken file
        what = f"cannot be read as plain tensors: {_reason(error)}"
        fix = f"use a checkpoint saved by open_clip, preferably {_HUB_FILE}"
        raise WeightsError(what, where=where, fix=fix) from error


def tokenizer_of(name: str, config: dict[str, Any]) -> Callable[..., Tensor]:
    """The tokenizer of an architecture or folder with this `model_config`."""
    options = {}
    if merges := (config["text_cfg"].get("tokenizer_kwargs") or {}).get("bpe_path"):
        options["bpe_path"] = str(Path(name.removeprefix("local-dir:")) / merges)
    tokenizer: Callable[..., Tensor] = open_clip.get_tokenizer(name, **options)
    return tokenizer


def _reason(error: Exception) -> str:
    return textwrap.shorten(f"{type(error).__name__}: {error}", 160)
