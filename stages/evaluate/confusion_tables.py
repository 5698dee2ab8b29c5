"""Confusion matrices as tables for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt

from pipeline.config.config import Config
from stages.evaluate.score_key import SPLITS, ScoreKey
from stages.ingest.config import Role
from stages.pseudolabel.config import PseudolabelConfig
from stages.train.config import TrainConfig, VariantConfig

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ConfusionTable:
    """A confusion matrix to show.

    Attributes:
        title: The model and the images.
        columns: Names of the predicted classes; "none" if some pixels were left unlabeled.
        rows: By true class its name and the share of its pixels that went to each column, in
            percent and rounded; None for a class that does not occur.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, tuple[int, ...] | None]]


def build_confusion_tables(
    config: Config, counts: Mapping[ScoreKey, Counts]
) -> list[ConfusionTable]:
    """A table for each variant, on the last split it was scored on, and each labeler and role.

    Pixels of several seeds are added.
    """
    names = config.vocabulary.class_names
    train, pseudolabel = config.section(TrainConfig), config.section(PseudolabelConfig)
    variants = {} if train is None else train.variants
    labelers = [] if pseudolabel is None else list(pseudolabel.labelers)
    found = [_of_variant(counts, name, each, names) for name, each in variants.items()]
    for labeler in labelers:
        for role in get_args(Role):
            own = counts.get(ScoreKey("labeler", labeler, None, role))
            if own is not None:
                found.append(_table(f"{labeler} on {role}", own, names))
    return [table for table in found if table is not None]


def _of_variant(
    counts: Mapping[ScoreKey, Counts], name: str, variant: VariantConfig, names: tuple[str, ...]
) -> ConfusionTable | None:
    for split in reversed(SPLITS):
        keys = (ScoreKey("training", name, seed, split) for seed in variant.seeds)
        own = [counts[key] for key in keys if key in counts]
        if own:
            seeds = f", {len(own)} seeds" if len(own) > 1 else ""
            title = f"{variant.title or name} on {split}{seeds}"
            return _table(title, np.sum(own, axis=0), names)
    return None


def _table(title: str, counts: Counts, names: tuple[str, ...]) -> ConfusionTable:
    if not counts[:, -1].any():
        counts = counts[:, :-1]
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.rint(100 * counts / np.maximum(totals, 1)).astype(int).tolist()
    rows = [
        (name, tuple(own) if total else None)
        for name, own, (total,) in zip(names, shares, totals.tolist(), strict=True)
    ]
    return ConfusionTable(title, (*names, "none")[: counts.shape[1]], rows)
