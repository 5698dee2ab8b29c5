"""Forward passes of clean views through the student, with gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor

from stages.models.segmenters.networks.base import SegmentationNetwork, running_statistics
from stages.train.data.random_numbers import StepRandom

LABELED = "labeled"
"""Key of the labeled crops."""
DROPPED = 0.5
"""Share of the channels that feature perturbation sets to zero."""


@dataclass(frozen=True)
class CleanOutputs:
    """The student's outputs for clean views, by key: `LABELED` or a role.

    Attributes:
        logits: (B, C, S, S) each.
        perturbed: The same from perturbed features; empty if none were made.
        maps: (B, F, h, w) each, the decoder's maps before the classifier.
    """

    logits: Mapping[str, Tensor]
    perturbed: Mapping[str, Tensor]
    maps: Mapping[str, Tensor]


def clean_forward(
    network: SegmentationNetwork,
    groups: Sequence[Mapping[str, Tensor]],
    random: StepRandom,
    *,
    perturb: bool,
    separate_domains: bool,
) -> CleanOutputs:
    """Passes groups of views through a network in train mode, each group as one batch.

    Feature perturbation sets half of the channels to zero and doubles the rest, at random for each
    image and level. The decoder sees perturbed and clean features in one batch, so that BatchNorm
    in the decoder takes its statistics over both (UniMatch, arXiv 2208.09910, section 3.2).

    Args:
        network: The student.
        groups: Views (B, 3, S, S) by key.
        random: The random numbers of the step.
        perturb: Whether to decode perturbed features too.
        separate_domains: Whether running statistics come only from the group with the labeled
            crops, and perturbed features are decoded after the clean ones instead of with them.
    """
    network.train()
    logits: dict[str, Tensor] = {}
    perturbed: dict[str, Tensor] = {}
    maps: dict[str, Tensor] = {}
    for views in groups:
        images = torch.cat([*views.values()])
        size = (images.shape[-2], images.shape[-1])
        moving = LABELED in views or not separate_domains
        with running_statistics(network, moving=moving):
            features = network.encode(images)
            kept = _perturbed(features, views, random) if perturb else []
            if perturb and not separate_domains:
                together = [torch.cat(both) for both in zip(features, kept, strict=True)]
                fused = network.fuse(together)
                clean, dropped = network.classify(fused, size).chunk(2)
            else:
                fused = network.fuse(features)
                clean = network.classify(fused, size)
        if perturb and separate_domains:
            with running_statistics(network, moving=False):
                dropped = network.decode(kept, size)
        counts = [len(each) for each in views.values()]
        logits |= zip(views, torch.split(clean, counts), strict=True)
        maps |= zip(views, torch.split(fused[: len(images)], counts), strict=True)
        if perturb:
            perturbed |= zip(views, torch.split(dropped, counts), strict=True)
    return CleanOutputs(logits, perturbed, maps)


def _perturbed(
    features: Sequence[Tensor], views: Mapping[str, Tensor], random: StepRandom
) -> list[Tensor]:
    """Features (N, F, h, w) of each level with channels dropped.

    The dropped channels depend on key, level and image, not on the other views of the batch.
    """
    dropped = []
    for number, level in enumerate(features):
        draw = partial(_channels_kept, level.shape[1])
        kept = [random.of_images(f"features {number} of {key}", draw) for key in views]
        dropped.append(level * torch.cat(kept).to(level)[:, :, None, None])
    return dropped


def _channels_kept(count: int, generator: Generator) -> Tensor:
    """(F,) float: 0 for dropped channels, else the factor that preserves the mean."""
    return (torch.rand(count, generator=generator) >= DROPPED).float() / (1 - DROPPED)
