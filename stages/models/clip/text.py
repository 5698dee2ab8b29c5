"""Text embeddings of a vocabulary: one for each query; a class is the best of its queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES
from torch import Tensor
from torch.nn import functional as F

from pipeline.config.vocabulary import PromptSet, Vocabulary
from stages.models.clip.text_cache import TextCache

_PROMPTS_A_FORWARD = 256

# In the published order: with `stack-80`, a cost volume convolves over it.
_IMAGENET_80 = tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)
_SCENES = tuple(
    f"{beginning} {{}} in the scene."
    for beginning in ("there is a", "there is the", "this is a", "this is the", "this is one")
)
"""MaskCLIP's own templates (arXiv 2112.01071, its code), in its order."""

TEMPLATES: dict[PromptSet, tuple[str, ...]] = {
    "single": ("a photo of a {}",),
    "single-dot": ("a photo of a {}.",),
    "mean-80": _IMAGENET_80,
    "mean-85": (*_IMAGENET_80, *_SCENES),
    "stack-80": _IMAGENET_80,
}
"""Templates of the published prompt sets; {} stands for a name."""


@dataclass(frozen=True)
class Channels:
    """Candidates for a pixel: the classes that have concepts, and perhaps a background.

    Attributes:
        queries: K concepts, class by class, then the background concepts. Each is a tuple of names
            whose embeddings are averaged.
        members: For each channel, the positions of its queries.
        values: For each channel, the mask value of its pixels: a class id, or 255 = ignore.
        averages_raw: Whether names are averaged before they are normalised, as in SemiVL's
            concept-avg, or after, as in SED for synonyms.
    """

    queries: tuple[tuple[str, ...], ...]
    members: tuple[tuple[int, ...], ...]
    values: tuple[int, ...]
    averages_raw: bool = False

    def class_scores(self, scores: Tensor) -> Tensor:
        """The maximum over each channel's queries: SemiVL's concept-max (arXiv 2311.16241).

        Args:
            scores: (..., K) float, in the order of `queries`.

        Returns:
            (..., C) float, one score for each channel.
        """
        best = [scores[..., list(positions)].amax(-1) for positions in self.members]
        return torch.stack(best, -1)


def channels(vocabulary: Vocabulary) -> Channels:
    """The channels of a vocabulary.

    A class without concepts has no channel, so no pixel gets it. Background concepts belong to the
    vocabulary's background class; if it has none, they are a last channel of value 255.

    Raises:
        ConfigError: No class has a concept, or two classes have the same concept.
    """
    vocabulary.check_concepts()
    queries: list[tuple[str, ...]] = []
    members: dict[int, tuple[int, ...]] = {}
    for value, names in vocabulary.queries():
        members[value] = (*members.get(value, ()), len(queries))
        queries.append(names)
    averages = vocabulary.aggregation == "concept-avg"
    return Channels(tuple(queries), tuple(members.values()), tuple(members), averages)


def embed(
    encode: Callable[[Sequence[str]], Tensor],
    channels: Channels,
    templates: Sequence[str],
    *,
    cache: TextCache | None = None,
) -> Tensor:
    """Embeds queries in each template, as SED does (arXiv 2311.15537).

    Each name has a forward pass of its own, with all templates: its embeddings do not depend on
    other names, not even by rounding, so cached and new ones are equal.

    Args:
        encode: Maps N prompts to (N, D) float embeddings of any length.
        channels: The queries, K of them.
        templates: P templates; {} stands for a name.
        cache: A cache for embeddings of names.

    Returns:
        (K, P, D) float32 of length 1, on the CPU.
    """
    names = dict.fromkeys(name for query in channels.queries for name in query)
    raw = {name: _templated(encode, name, templates, cache) for name in names}
    stacks = []
    for query in channels.queries:
        own = torch.stack([raw[name] for name in query])
        own = own if channels.averages_raw else F.normalize(own, dim=-1)
        stacks.append(F.normalize(own.mean(0), dim=-1))
    return torch.stack(stacks)


def prompts(channels: Channels, templates: Sequence[str]) -> Iterator[list[str]]:
    """Yields the prompts of each name, one a template, as `embed` asks for them."""
    for name in dict.fromkeys(name for query in channels.queries for name in query):
        yield _prompts(name, templates)


def ensemble(stack: Tensor) -> Tensor:
    """CLIP's prompt ensemble: the mean over templates, normalised; (K, P, D) to (K, D)."""
    return F.normalize(stack.mean(1), dim=-1)


def templates_of(vocabulary: Vocabulary) -> tuple[str, ...]:
    """The prompt templates of a vocabulary."""
    return vocabulary.templates if vocabulary.prompts is None else TEMPLATES[vocabulary.prompts]


def _templated(
    encode: Callable[[Sequence[str]], Tensor],
    name: str,
    templates: Sequence[str],
    cache: TextCache | None,
) -> Tensor:
    """Raw embeddings of a name in each template, (P, D) float32 on the CPU."""
    if cache is not None and (known := cache.read(name, templates)) is not None:
        return known
    asked = _prompts(name, templates)
    parts = range(0, len(asked), _PROMPTS_A_FORWARD)
    found = [encode(asked[i : i + _PROMPTS_A_FORWARD]).float().cpu() for i in parts]
    embeddings = torch.cat(found)
    if cache is not None:
        cache.write(name, templates, embeddings)
    return embeddings


def _prompts(name: str, templates: Sequence[str]) -> list[str]:
    return [template.replace("{}", name) for template in templates]
