"""The key of a score: a model and the images of a role."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SPLITS = ("val", "test")
"""Roles of the images that trainings are scored on; the report shows the last one there is."""

LABELED_ROLES = ("unlabeled", "ood", "val", "test")
"""Roles of the images that labelers are scored on; labeled ones are for the report card."""

BEST = "best/"
"""Prefix of the names of scores of the weights that were best on val."""


@dataclass(frozen=True)
class ScoreKey:
    """Key of a scored model and split.

    Attributes:
        kind: What was scored: a training, or a labeler's stored labels.
        name: The training variant or the labeler.
        seed: The seed of the training; None for a labeler.
        split: The role of the images.
    """

    kind: Literal["training", "labeler"]
    name: str
    seed: int | None
    split: str

    def __str__(self) -> str:
        seed = "" if self.seed is None else f" seed {self.seed}"
        return f"{self.kind} {self.name}{seed} on {self.split}"
