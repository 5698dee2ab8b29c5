"""Models of Hugging Face transformers that score texts at every pixel of an image.

Shapes: K queries and C channels of a vocabulary, h x w the model's output resolution.
"""

from __future__ import annotations

import textwrap
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import huggingface_hub
import torch
import transformers
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers.models.groupvit.modeling_groupvit import get_grouping_from_attentions

from pipeline.errors import ConfigError, WeightsError
from stages.models.clip import text
from stages.models.clip.text import Channels
from stages.models.finite import finite_scores, finite_weights
from stages.pseudolabel.pixels.byte_resize import pillow

Network: TypeAlias = Any
"""A model of transformers."""

_CONFIG = "config.json"
_PROMPTS_A_FORWARD = 64


class TextModel(ABC):
    """A network that scores the texts of a vocabulary in images.

    Args:
        network: The network, in eval mode.
        tokenizer: The network's tokenizer.
        processor: The network's image processor: size, filter, mean and deviation of images.
    """

    def __init__(self, network: Network, tokenizer: Any, processor: Any) -> None:
        self.network = network
        self._tokenizer = tokenizer
        size = processor.size
        self._size_px = int(size["height"] if "height" in size else size["shortest_edge"])
        self._filter = Image.Resampling(int(processor.resample))
        self._mean, self._std = processor.image_mean, processor.image_std

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        device: torch.device = self.network.device
        return device

    def set_texts(self, channels: Channels, templates: Sequence[str]) -> None:
        """Embeds the texts of a vocabulary; must be called before `probabilities`."""
        self._channels = channels
        with torch.inference_mode():
            self._embed(templates)

    def probabilities(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """(C, *size) float in [0, 1] for an image (3, H, W) uint8."""
        mean, std = (
            torch.tensor(own, device=self.device)[:, None, None] for own in (self._mean, self._std)
        )
        stretched = pillow(image, (self._size_px, self._size_px), self._filter)
        with torch.inference_mode():
            scores = self._scores((stretched.to(self.device)[None].float() / 255 - mean) / std)
        resized = F.interpolate(finite_scores(scores)[None].float(), size, mode="bilinear")
        return resized[0].clamp(0, 1)

    @abstractmethod
    def _embed(self, templates: Sequence[str]) -> None:
        """Embeds or tokenizes the texts of the channels."""

    @abstractmethod
    def _scores(self, pixels: Tensor) -> Tensor:
        """(C, h, w) float in [0, 1] for a normalised image (1, 3, S, S)."""

    def _tokens(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Tokens padded to the maximum length, so that prompts do not affect each other."""
        longest = self.network.config.text_config.max_position_embeddings
        tokens = self._tokenizer(
            list(prompts),
            padding="max_length",
            max_length=longest,
            truncation=True,
            return_tensors="pt",
        )
        names = ("input_ids", "attention_mask")
        return {name: tokens[name].to(self.device) for name in names}

    def _of_channels(self, scores: Tensor) -> Tensor:
        """(K, h, w) to (C, h, w)."""
        return self._channels.class_scores(scores.movedim(0, -1)).movedim(-1, 0)


class ClipSeg(TextModel):
    """CLIPSeg (arXiv 2112.10003): scores each concept independently.

    A query is the mean of the embeddings of its names in all templates. It is not normalised,
    because the decoder was trained on embeddings that were not.
    """

    def _embed(self, templates: Sequence[str]) -> None:
        queries = []
        for names in self._channels.queries:
            prompts = [template.replace("{}", name) for name in names for template in templates]
            found = self.network.clip.get_text_features(**self._tokens(prompts))
            queries.append(found.pooler_output.mean(0))
        self._queries = torch.stack(queries)

    def _scores(self, pixels: Tensor) -> Tensor:
        seen = self.network.clip.vision_model(
            pixel_values=pixels, interpolate_pos_encoding=True, output_hidden_states=True
        )
        layers = [seen.hidden_states[layer + 1] for layer in self.network.extract_layers]
        found = []
        for queries in torch.split(self._queries, _PROMPTS_A_FORWARD):
            repeated = [layer.expand(len(queries), -1, -1) for layer in layers]
            logits = finite_scores(self.network.decoder(repeated, queries).logits)
            found.append(logits.reshape(len(queries), *logits.shape[-2:]).sigmoid())
        return self._of_channels(torch.cat(found))


class GroupVit(TextModel):
    """GroupViT (arXiv 2202.11094): scores groups of patches, and maps groups back to pixels.

    Logits are scaled once, not twice as in transformers, so that the softmax over classes does not
    saturate; the best class is the same.
    """

    def _embed(self, templates: Sequence[str]) -> None:
        def encode(prompts: Sequence[str]) -> Tensor:
            embeddings: Tensor = self.network.get_text_features(
                **self._tokens(prompts)
            ).pooler_output
            return embeddings

        stack = text.embed(encode, self._channels, templates)
        self._queries = text.ensemble(stack).to(self.device)

    def _scores(self, pixels: Tensor) -> Tensor:
        seen = self.network.vision_model(pixel_values=pixels, output_attentions=True)
        groups = self.network.visual_projection(seen.last_hidden_state[0])
        logits = self._queries @ F.normalize(groups, dim=-1).T * self.network.logit_scale.exp()
        grouping = get_grouping_from_attentions(seen.attentions, pixels.shape[2:])[0]
        scores = torch.einsum("kg,ghw->khw", logits, grouping)
        return self._of_channels(scores).softmax(0)


class Sam3(TextModel):
    """SAM 3 (arXiv 2511.16719): scores the presence of each concept and segments it.

    Prompts are the names without templates, because it was trained on noun phrases. A pixel's
    probability is that of the semantic map times that of the concept's presence in the image. The
    probability of a concept with several names is that of its best name.
    """

    def _embed(self, templates: Sequence[str]) -> None:
        names = dict.fromkeys(name for query in self._channels.queries for name in query)
        self._prompts = {name: self._tokens([name]) for name in names}

    def _scores(self, pixels: Tensor) -> Tensor:
        seen = self.network.get_vision_features(pixels)
        scores = {}
        for name, tokens in self._prompts.items():
            found = self.network(vision_embeds=seen, **tokens)
            presence = finite_scores(found.presence_logits).sigmoid().reshape(())
            scores[name] = finite_scores(found.semantic_seg[0, 0]).sigmoid() * presence
        queries = [
            torch.stack([scores[name] for name in names]).amax(0)
            for names in self._channels.queries
        ]
        return self._of_channels(torch.stack(queries))


_KINDS: dict[str, tuple[str, type[TextModel]]] = {
    "clipseg": ("CLIPSegForImageSegmentation", ClipSeg),
    "groupvit": ("GroupViTModel", GroupVit),
    "sam3": ("Sam3Model", Sam3),
}
"""The class in transformers and our wrapper, by the `model_type` of a config."""


def load_model(model: str | Path, revision: str) -> TextModel:
    """Loads a model from a folder, the hub's cache or the hub, without running code from it.

    Raises:
        ConfigError: The model type is not supported.
        WeightsError: The model cannot be downloaded or read.
    """
    where = f"model: {model}"
    try:
        transformers.utils.logging.disable_progress_bar()
        if isinstance(model, str) and not _is_cached(model, revision):
            # Fails fast when offline; the retries of `from_pretrained` take most of a minute.
            huggingface_hub.file_exists(model, _CONFIG, revision=revision)
        config = transformers.AutoConfig.from_pretrained(
            model, revision=revision, trust_remote_code=False
        )
        if config.model_type in _KINDS:
            name, kind = _KINDS[config.model_type]
            architecture = getattr(transformers, name)
            network, loading = architecture.from_pretrained(
                model, revision=revision, output_loading_info=True
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                model, revision=revision, trust_remote_code=False
            )
            processor = transformers.AutoImageProcessor.from_pretrained(
                model, revision=revision, trust_remote_code=False
            )
    except Exception as error:  # transformers raises many kinds of errors
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 160)
        folder = f"weights/{Path(model).name}"
        fix = f"run `hf download {model} --local-dir {folder}`, then `model: local-dir:{folder}`"
        if isinstance(model, Path):
            fix = "fetch it again with `hf download`"
        raise WeightsError(f"cannot be loaded ({reason})", where=where, fix=fix) from error
    if config.model_type not in _KINDS:
        what = f"unsupported transformers model type {config.model_type}"
        fix = f"use a model of one of the types {', '.join(_KINDS)}"
        raise ConfigError(what, where=where, fix=fix)
    if missing := sorted(loading["missing_keys"]):
        what = f"{len(missing)} tensors are missing, such as {missing[0]}"
        raise WeightsError(what, where=where, fix="fetch it again with `hf download`")
    finite_weights(network.state_dict(), where)
    return kind(network.eval().requires_grad_(False), tokenizer, processor)


def _is_cached(model: str, revision: str) -> bool:
    found = huggingface_hub.try_to_load_from_cache(model, _CONFIG, revision=revision)
    return isinstance(found, str)
