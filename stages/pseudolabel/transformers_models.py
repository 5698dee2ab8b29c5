"""Models of Hugging Face's transformers that score texts at every pixel of an image.

Shapes: K queries and C channels of a vocabulary, h x w the model's own resolution.
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
from torch import Tensor
from torch.nn import functional as F
from transformers.models.groupvit.modeling_groupvit import get_grouping_from_attentions

from pipeline.errors import ConfigError, WeightsError
from stages.models.clip import text
from stages.models.clip.text import Channels

Network: TypeAlias = Any
"""A model of transformers."""

_CONFIG = "config.json"
_PROMPTS_A_FORWARD = 64


class TextModel(ABC):
    """A network that was asked for a vocabulary, ready for images.

    Args:
        network: In eval mode.
        tokenizer: Of its texts.
        processor: Says size, mean and deviation of its images.
    """

    def __init__(self, network: Network, tokenizer: Any, processor: Any) -> None:
        self.network = network
        self._tokenizer = tokenizer
        size = processor.size
        self._size_px = int(size["height"] if "height" in size else size["shortest_edge"])
        self._mean, self._std = processor.image_mean, processor.image_std

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        device: torch.device = self.network.device
        return device

    def ask(self, channels: Channels, templates: Sequence[str], device: torch.device) -> None:
        """Reads the texts of a vocabulary; before any image."""
        self._channels = channels
        with torch.inference_mode():
            self._read(templates)

    def probabilities(self, image: Tensor) -> Tensor:
        """(C, H, W) float in [0, 1] of an image, (3, H, W) uint8, at its own size."""
        mean, std = (
            torch.tensor(own, device=self.device)[:, None, None] for own in (self._mean, self._std)
        )
        square = (self._size_px, self._size_px)
        whole = image.to(self.device)[None].float() / 255
        stretched = F.interpolate(whole, square, mode="bilinear", antialias=True)
        with torch.inference_mode():
            scores = self._scores((stretched - mean) / std)
        size = (image.shape[1], image.shape[2])
        return F.interpolate(scores[None].float(), size, mode="bilinear")[0].clamp(0, 1)

    @abstractmethod
    def _read(self, templates: Sequence[str]) -> None:
        """Embeds what it will be asked."""

    @abstractmethod
    def _scores(self, pixels: Tensor) -> Tensor:
        """(C, h, w) float in [0, 1] of an image, (1, 3, S, S) normalised."""

    def _tokens(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """All of the greatest length: a prompt's numbers do not depend on others'."""
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
    """CLIPSeg (arXiv 2112.10003): whether each concept is there, on its own.

    A query is the mean of the embeddings of its names in all templates, not normalised, as its
    decoder was trained with one such embedding.
    """

    def _read(self, templates: Sequence[str]) -> None:
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
            again = [layer.expand(len(queries), -1, -1) for layer in layers]
            logits = self.network.decoder(again, queries).logits
            found.append(logits.reshape(len(queries), *logits.shape[-2:]).sigmoid())
        return self._of_channels(torch.cat(found))


class GroupVit(TextModel):
    """GroupViT (arXiv 2202.11094): groups of patches against texts, and groups back to pixels.

    Logits are those of transformers but scaled once, not twice, so that the softmax over classes
    tells the sure from the unsure; the best class is the same.
    """

    def _read(self, templates: Sequence[str]) -> None:
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
    """SAM 3 (arXiv 2511.16719): whether each concept is there, and where.

    It is asked for names as they are, without templates: it was trained on noun phrases. A pixel's
    probability is that of the semantic map times that of the concept's presence in the image; of
    names that are synonyms the best counts.
    """

    def _read(self, templates: Sequence[str]) -> None:
        names = dict.fromkeys(name for query in self._channels.queries for name in query)
        self._asked = {name: self._tokens([name]) for name in names}

    def _scores(self, pixels: Tensor) -> Tensor:
        seen = self.network.get_vision_features(pixels)
        scores = {}
        for name, tokens in self._asked.items():
            found = self.network(vision_embeds=seen, **tokens)
            presence = found.presence_logits.sigmoid().reshape(())
            scores[name] = found.semantic_seg[0, 0].sigmoid() * presence
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
"""By `model_type` of a config: the class in transformers, and ours."""


def load_model(model: str | Path, revision: str) -> TextModel:
    """Loads a model from a folder, or from the hub's cache or the hub; no code of it is run.

    Raises:
        ConfigError: It is of no kind that is known here.
        WeightsError: It cannot be downloaded or read.
    """
    where = f"model: {model}"
    try:
        transformers.utils.logging.disable_progress_bar()
        if isinstance(model, str) and not _is_cached(model, revision):
            # One request: offline, the hub's own retries would take most of a minute.
            huggingface_hub.file_exists(model, _CONFIG, revision=revision)
        config = transformers.AutoConfig.from_pretrained(model, revision=revision)
        if config.model_type in _KINDS:
            name, kind = _KINDS[config.model_type]
            architecture = getattr(transformers, name)
            network, loading = architecture.from_pretrained(
                model, revision=revision, output_loading_info=True
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(model, revision=revision)
            processor = transformers.AutoImageProcessor.from_pretrained(model, revision=revision)
    except Exception as error:  # whatever transformers stumbles over in a model it does not know
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 160)
        folder = f"weights/{Path(model).name}"
        fix = f"run `hf download {model} --local-dir {folder}`, then `model: local-dir:{folder}`"
        if isinstance(model, Path):
            fix = "fetch it again with `hf download`"
        raise WeightsError(f"cannot be loaded ({reason})", where=where, fix=fix) from error
    if config.model_type not in _KINDS:
        what = f"transformers knows it as {config.model_type}, which is not asked here"
        raise ConfigError(what, where=where, fix=f"use one of the kinds {', '.join(_KINDS)}")
    if missing := sorted(loading["missing_keys"]):
        what = f"{len(missing)} tensors are missing, such as {missing[0]}"
        raise WeightsError(what, where=where, fix="fetch it again with `hf download`")
    return kind(network.eval().requires_grad_(False), tokenizer, processor)


def _is_cached(model: str, revision: str) -> bool:
    found = huggingface_hub.try_to_load_from_cache(model, _CONFIG, revision=revision)
    return isinstance(found, str)
