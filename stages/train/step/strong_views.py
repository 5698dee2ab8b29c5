"""Strong views: recolored crops with pasted pixels, and the labels of their pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.labels.pseudo_labels import PseudoLabels
from stages.models.segmenters.normalization import normalize
from stages.train.data.batch import TrainBatch
from stages.train.data.colors import random_colors
from stages.train.distributed import all_gather_rows
from stages.train.step.pasting import cutmix_boxes, paste


@dataclass(frozen=True)
class View:
    """A view of a role's crops.

    Attributes:
        images: (B, 3, S, S) float.
        valid: (B, S, S) bool, False on padding.
        labels: Labels (B, S, S) by source.
    """

    images: Tensor
    valid: Tensor
    labels: Mapping[str, PseudoLabels]

    def pasted(self, other: View, box: Tensor) -> View:
        """This view with the pixels inside a box taken from another view.

        Args:
            other: A view with labels of the same sources.
            box: (B, S, S) bool, True = take from `other`.
        """
        return View(
            paste(self.images, other.images, box),
            torch.where(box, other.valid, self.valid),
            {name: own.pasted(other.labels[name], box) for name, own in self.labels.items()},
        )

    def normalized(self, batch: TrainBatch, role: str, recolor: bool) -> View:
        """The view with normalized pixels, recolored first if asked; its pixels are in [0, 1]."""
        pixels = self.images
        if recolor:
            pixels = random_colors(pixels, batch.random, f"colours of mixed {role}")
        return View(normalize(pixels), self.valid, self.labels)

    def of_rows(self, rows: Tensor) -> View:
        """The view of other rows of the whole batch, gathered from all processes.

        Args:
            rows: (B,) int64 rows, as in `StepRandom.rows`.
        """

        def take(local: Tensor) -> Tensor:
            return all_gather_rows(local)[rows]

        return View(
            take(self.images),
            take(self.valid.byte()).bool(),
            {
                name: PseudoLabels(take(labels.mask), take(labels.confidence))
                for name, labels in self.labels.items()
            },
        )


def strong_view(
    batch: TrainBatch, key: str, number: int, labels: Mapping[str, PseudoLabels]
) -> View:
    """A strong view with nothing pasted yet.

    Args:
        batch: The crops of the step.
        key: A role, or the second draw.
        number: Number of the strong view, from 0.
        labels: Labels of the weak view, by source.
    """
    return View(batch.strong(key, number), batch.crops[key].valid, labels)


def boxes(batch: TrainBatch, role: str, number: int) -> Tensor:
    """The CutMix boxes of a strong view, (B, S, S) bool; the same for every role."""
    valid = batch.crops[role].valid
    return cutmix_boxes(valid.shape[-1], batch.random, f"boxes {number}").to(valid.device)
