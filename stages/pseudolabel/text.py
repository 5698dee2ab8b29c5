"""A vocabulary as text embeddings: one a concept, and classes as the best of their concepts."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.errors import ConfigError
from pipeline.vocabulary import IGNORE, Vocabulary
from stages.pseudolabel.clip import Clip

_PROMPTS_A_FORWARD = 256


@dataclass(frozen=True)
class Channels:
    """What scores are softmaxed over: the classes that have concepts, and perhaps a background.

    Attributes:
        concepts: Every concept, class by class, then the background concepts.
        members: Per channel, the positions of its concepts.
        values: Per channel, the mask value of the pixels it wins: a class id, or 255 = ignore.
    """

    concepts: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]
    values: tuple[int, ...]

    def class_scores(self, cosines: Tensor) -> Tensor:
        """The maximum over each channel's concepts: SemiVL's concept-max (arXiv 2311.16241).

        Args:
            cosines: (..., K) float, in the order of `concepts`.

        Returns:
            (..., C) float, one score a channel.
        """
        best = [cosines[..., list(positions)].amax(-1) for positions in self.members]
        return torch.stack(best, -1)


def channels(vocabulary: Vocabulary) -> Channels:
    """The channels of a vocabulary.

    Classes without a concept get none, so they never win. Background concepts join the class that
    the vocabulary calls its background; without one they are a last channel of value 255.

    Raises:
        ConfigError: No class has a concept.
    """
    concepts: list[str] = []
    members: dict[int, tuple[int, ...]] = {}

    def add(value: int, names: Sequence[str]) -> None:
        if names:
            new = tuple(range(len(concepts), len(concepts) + len(names)))
            members[value] = members.get(value, ()) + new
            concepts.extend(names)

    for class_id, entry in enumerate(vocabulary.classes):
        add(class_id, entry.asked)
    add(vocabulary.background_id, vocabulary.background_concepts)
    if not members.keys() - {IGNORE}:
        fix = "give at least one class a concept"
        where = f"vocabulary {vocabulary.name}"
        raise ConfigError("no class has a concept to look for", where=where, fix=fix)
    return Channels(tuple(concepts), tuple(members.values()), tuple(members))


def embed(clip: Clip, concepts: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Embeds concepts as the mean of their prompts, as CLIP's prompt ensemble does.

    Each prompt is normalised, their mean over the templates is normalised again.

    Returns:
        (K, D) float of length 1, on the model's device.
    """
    prompts = [template.replace("{}", concept) for concept in concepts for template in templates]
    embeddings = torch.cat(
        [
            clip.encode_text(prompts[i : i + _PROMPTS_A_FORWARD])
            for i in range(0, len(prompts), _PROMPTS_A_FORWARD)
        ]
    )
    ensemble = embeddings.reshape(len(concepts), len(templates), -1).mean(1)
    return F.normalize(ensemble, dim=-1)
