"""Confusion matrices for people, from the manifest of their cells alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt

from pipeline.config.config import Config
from pipeline.config.vocabulary import IGNORE
from pipeline.records import manifest, tables
from stages.evaluate.tables import SPLITS
from stages.ingest.config import Role
from stages.pseudolabel.stage import PseudolabelConfig
from stages.train.config import TrainConfig, VariantConfig

Counts = npt.NDArray[np.int64]
Key = tuple[str, int | None, str]
"""Variant or labeler, seed (None of a labeler), split."""


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix to show.

    Attributes:
        title: Whose it is.
        columns: Names of the predicted classes; "none" where some pixels were left open.
        rows: By true class its name and the share of its pixels that went to each column, in
            percent and rounded; None for one that does not occur.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, tuple[int, ...] | None]]


def read_matrices(config: Config) -> list[Matrix]:
    """A matrix a variant, on the last split that it was scored on; and one a labeler and role.

    Pixels of several seeds are counted together.
    """
    counts = _read_counts(config)
    names = config.vocabulary.class_names
    train, pseudolabel = (config.sections.get(name) for name in ("train", "pseudolabel"))
    variants = train.variants if isinstance(train, TrainConfig) else {}
    labelers = pseudolabel.labelers if isinstance(pseudolabel, PseudolabelConfig) else {}
    found = [_of_variant(counts, name, each, names) for name, each in variants.items()]
    for labeler in labelers:
        for role in get_args(Role):
            if (own := counts.get((labeler, None, role))) is not None:
                found.append(_matrix(f"{labeler} on {role}", own, names))
    return [matrix for matrix in found if matrix is not None]


def _read_counts(config: Config) -> dict[Key, Counts]:
    """(C, C + 1) pixels by model and split; the last column is what was left open."""
    folder = config.manifests / tables.CONFUSION.name
    columns = ["variant", "seed", "split", "true_id", "predicted_id", "pixels"]
    size = config.vocabulary.num_classes
    counts: dict[Key, Counts] = {}
    for row in manifest.read(folder, tables.CONFUSION, columns).to_pylist():
        key = (row["variant"], row["seed"], row["split"])
        own = counts.setdefault(key, np.zeros((size, size + 1), np.int64))
        column = size if row["predicted_id"] == IGNORE else row["predicted_id"]
        if max(row["true_id"], column) <= size:  # else of a vocabulary that was longer
            own[row["true_id"], column] = row["pixels"]
    return counts


def _of_variant(
    counts: Mapping[Key, Counts], name: str, variant: VariantConfig, names: tuple[str, ...]
) -> Matrix | None:
    for split in reversed(SPLITS):
        own = [counts[name, seed, split] for seed in variant.seeds if (name, seed, split) in counts]
        if own:
            seeds = f", {len(own)} seeds" if len(own) > 1 else ""
            title = f"{variant.title or name} on {split}{seeds}"
            return _matrix(title, np.sum(own, axis=0), names)
    return None


def _matrix(title: str, counts: Counts, names: tuple[str, ...]) -> Matrix:
    if not counts[:, -1].any():
        counts = counts[:, :-1]
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.rint(100 * counts / np.maximum(totals, 1)).astype(int).tolist()
    rows = [
        (name, tuple(own) if total else None)
        for name, own, (total,) in zip(names, shares, totals.tolist(), strict=True)
    ]
    return Matrix(title, (*names, "none")[: counts.shape[1]], rows)
