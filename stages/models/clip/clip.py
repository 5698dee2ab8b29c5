"""Loads CLIP models of open_clip and computes features of images, locations and texts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.errors import ConfigError, WeightsError
from stages.models.checkpoint_file import CheckpointFile
from stages.models.clip import towers
from stages.models.clip.architectures import fetch_tag, model_config, reason_of, tag_of
from stages.models.clip.clip_weights import FOLDER_CONFIG, MASKCLIP, Dense
from stages.models.clip.file_settings import (
    as_safetensors,
    normalization_beside,
    read_clip_file,
    settings_of,
)
from stages.models.embedded import trunk
from stages.models.finite import finite_weights
from stages.models.segmenters.normalization import OPENAI, Normalization

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
        tokens = self.check_whole(prompts).to(self.mean.device)
        embeddings: Tensor = self.network.encode_text(tokens, normalize=normalize)
        return embeddings

    def check_whole(self, prompts: Sequence[str]) -> Tensor:
        """The tokens of prompts, (N, T); refuses to cut one, as its meaning could change.

        Raises:
            ConfigError: A prompt has more tokens than the model reads.
        """
        tokens = self.tokenizer(list(prompts))
        limit = tokens.shape[1]
        with_room = self.tokenizer(list(prompts), context_length=limit + 1)[:, :limit]
        for prompt, is_cut in zip(prompts, (tokens != with_room).any(1).tolist(), strict=True):
            if is_cut:
                what = f"the prompt {prompt!r} is longer than the model's {limit} tokens"
                raise ConfigError(what, where="vocabulary", fix="shorten the concept or template")
        return tokens

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
    normalization: Normalization | None = None,
) -> Clip:
    """Loads a model whose image encoder sees squares of a given size.

    Position embeddings of a vision transformer are resized to that size (`towers.prepared`).

    Args:
        model: An architecture of open_clip, or a folder in its layout.
        weights: A checkpoint file, or an architecture's tag, which is downloaded if needed.
        window_px: Side of the images.
        device: The device to run on.
        dense: The variant of attention that it must support.
        precision: Number format of its image encoder.
        normalization: Of its images, for a file that does not say it; see `file_settings`.

    Raises:
        ConfigError: The model or tag is unknown, or does not support the size or the variant.
        WeightsError: The weights cannot be downloaded or read, or belong to another model.
    """
    trunk.register()
    name = f"local-dir:{model}" if isinstance(model, Path) else model
    where = f"model: {name}" if isinstance(model, Path) else f"weights: {weights}"
    config = model_config(name)
    options, read = _settings(model, weights, normalization, where)
    file_of_weights = fetch_tag(name, weights) if isinstance(weights, str) else weights
    read = read or read_clip_file(file_of_weights, name, where)
    try:
        with as_safetensors(file_of_weights, read) as file:
            if isinstance(model, str):  # in a folder, open_clip finds the file
                options["pretrained"] = str(file)
            network = open_clip.create_model(name, **options).eval().requires_grad_(False)
        tokenizer = tokenizer_of(name, config)
    except Exception as error:  # open_clip raises many types for an unknown checkpoint
        architecture = "the folder's config" if isinstance(model, Path) else name
        what = f"the weights do not fit {architecture}: {reason_of(error)}"
        fix = "set `model` to the architecture they were trained with"
        raise WeightsError(what, where=where, fix=fix) from error
    towers.check(network.visual, name, window_px, dense)
    mean, std = (
        torch.tensor(network.visual.preprocess_cfg[key], device=device)[:, None, None]
        for key in ("mean", "std")
    )
    network.to(device)
    network.visual = towers.prepared(network.visual, window_px, precision, dense)
    finite_weights(network.state_dict(), where)  # after the precision, in which some may overflow
    return Clip(network, tokenizer, mean, std, precision)


def _settings(
    model: str | Path, weights: str | Path, normalization: Normalization | None, where: str
) -> tuple[dict[str, Any], CheckpointFile | None]:
    """Arguments of open_clip that weights ask for, and the file if they had to be read for it."""
    if isinstance(model, Path):  # open_clip reads its config
        normalization_beside(model / FOLDER_CONFIG)
        return {}, None
    if isinstance(weights, str):
        tag = tag_of(model, weights)
        # open_clip only warns if the architecture has another activation than the tag.
        statistics = {"mean": tag["mean"], "std": tag["std"]}
        is_quick = tag.get("quick_gelu", False)
        return {"force_quick_gelu": is_quick, "force_preprocess_cfg": statistics}, None
    read = read_clip_file(weights, model, where)
    return settings_of(weights, model, read, normalization), read


def tower_config(
    model: str | Path,
    weights: str | Path,
    window_px: int,
    normalization: Normalization | None = None,
) -> tuple[dict[str, Any], Normalization]:
    """The image side that `load_clip` loads, as plain values for JSON, and its normalization.

    Args:
        model: An architecture of open_clip, or a folder in its layout, whose config is read.
        weights: As for `load_clip`: they decide on the activation.
        window_px: Side of the images.
        normalization: As for `load_clip`.

    Raises:
        ConfigError: The model or tag is unknown.
        WeightsError: The folder is not in open_clip's layout, or the file cannot be read.
    """
    trunk.register()
    name = f"local-dir:{model}" if isinstance(model, Path) else model
    config = model_config(name)
    options, _ = _settings(model, weights, normalization, f"weights: {weights}")
    vision = dict(config["vision_cfg"])
    if "timm_model_name" not in vision and isinstance(vision["layers"], int):
        vision["image_size"] = window_px
    is_quick = config.get("quick_gelu", False) or options.get("force_quick_gelu", False)
    tower = {"embed_dim": config["embed_dim"], "vision_cfg": vision, "quick_gelu": is_quick}
    if isinstance(model, Path):
        return tower, normalization_beside(model / FOLDER_CONFIG) or OPENAI
    found = options["force_preprocess_cfg"]
    return tower, Normalization(tuple(found["mean"]), tuple(found["std"]))


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


def tokenizer_of(name: str, config: dict[str, Any]) -> Callable[..., Tensor]:
    """The tokenizer of an architecture or folder with this `model_config`."""
    text = config["text_cfg"]
    # Not even asked for: a folder's files are data, and never code to run.
    options: dict[str, Any] = {"trust_remote_code": False} if text.get("hf_tokenizer_name") else {}
    if merges := (config["text_cfg"].get("tokenizer_kwargs") or {}).get("bpe_path"):
        options["bpe_path"] = str(Path(name.removeprefix("local-dir:")) / merges)
    tokenizer: Callable[..., Tensor] = open_clip.get_tokenizer(name, **options)
    return tokenizer
