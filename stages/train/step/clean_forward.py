"""The passes of clean views through the student, with gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor

from stages.models.segmenters.networks.base import SegmentationNetwork, running_statistics
from stages.train.data.random_numbers import Draws

LABELED = "labeled"
"""Key of the labeled crops."""
DROPPED = 0.5
"""Share of the channels that feature perturbation sets to zero."""


@dataclass(frozen=True)
class CleanPass:
    """What the student made of clean views, by key: `LABELED` or a role.

    Attributes:
        logits: (B, C, S, S) of each.
        perturbed: The same from perturbed features; empty if they were not asked for.
        maps: (B, F, h, w) of each, the decoder's maps before the classifier.
    """

    logits: Mapping[str, Tensor]
    perturbed: Mapping[str, Tensor]
    maps: Mapping[str, Tensor]


def clean_pass(
    network: SegmentationNetwork,
    groups: Sequence[Mapping[str, Tensor]],
    draws: Draws,
    *,
    perturb: bool,
    apart: bool,
) -> CleanPass:
    """Passes groups of views through a network in train mode, each group as one batch.

    Perturbed features have half of their channels, drawn anew for each image and level, set to zero
    and the rest doubled; the decoder sees them in one batch with the clean ones, so that its
    BatchNorm, if it has any, takes its statistics over both (UniMatch, arXiv 2208.09910, section
    3.2).

    Args:
        network: The student.
        groups: Views (B, 3, S, S) by key.
        draws: The step's random numbers.
        perturb: Whether to decode perturbed features too.
        apart: Whether running statistics take in only groups with the labeled crops, and the
            decoder sees perturbed features after the clean ones instead of with them.
    """
    network.train()
    logits: dict[str, Tensor] = {}
    perturbed: dict[str, Tensor] = {}
    maps: dict[str, Tensor] = {}
    for views in groups:
        images = torch.cat([*views.values()])
        size = (images.shape[-2], images.shape[-1])
        moving = LABELED in views or not apart
        with running_statistics(network, moving=moving):
            features = network.encode(images)
            kept = _perturbed(features, views, draws) if perturb else []
            if perturb and not apart:
                together = [torch.cat(both) for both in zip(features, kept, strict=True)]
                fused = network.fuse(together)
                clean, dropped = network.classify(fused, size).chunk(2)
            else:
                fused = network.fuse(features)
                clean = network.classify(fused, size)
        if perturb and apart:
            with running_statistics(network, moving=False):
                dropped = network.decode(kept, size)
        counts = [len(each) for each in views.values()]
        logits |= zip(views, torch.split(clean, counts), strict=True)
        maps |= zip(views, torch.split(fused[: len(images)], counts), strict=True)
        if perturb:
            perturbed |= zip(views, torch.split(dropped, counts), strict=True)
    return CleanPass(logits, perturbed, maps)


def _perturbed(
    features: Sequence[Tensor], views: Mapping[str, Tensor], draws: Draws
) -> list[Tensor]:
    """Features (N, F, h, w) of each level with channels dropped.

    Which ones is a matter of key, level and image, whatever passes beside it.
    """
    dropped = []
    for number, level in enumerate(features):
        draw = partial(_channels_kept, level.shape[1])
        kept = [draws.of_images(f"features {number} of {key}", draw) for key in views]
        dropped.append(level * torch.cat(kept).to(level)[:, :, None, None])
    return dropped


def _channels_kept(count: int, generator: Generator) -> Tensor:
    """(F,) float: 0 for dropped channels, and the rest so that the mean stays."""
    return (torch.rand(count, generator=generator) >= DROPPED).float() / (1 - DROPPED)
