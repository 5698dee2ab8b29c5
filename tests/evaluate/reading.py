"""Reads scores as the data dictionary says that they are read."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.records.tables import CONFUSION, METRICS
from tests.finished_run import CLASSES


def scores_of(
    manifests: Path, name: str, split: str, seed: int | None = 0
) -> dict[str, float | None]:
    """Scores of a training, or of a labeler without seed, by name."""
    rows = _rows_of(manifests / "metrics", METRICS.schema.names, name, split, seed)
    rows = rows[rows["epoch"].isna()]
    assert rows["name"].is_unique
    return dict(zip(rows["name"], rows["value"], strict=True))


def matrix_of(
    manifests: Path, name: str, split: str, seed: int | None = 0
) -> npt.NDArray[np.int64]:
    """(C, C + 1) pixels by true and predicted class; last column = left open."""
    rows = _rows_of(manifests / "confusion", CONFUSION.schema.names, name, split, seed)
    named = rows.loc[rows["predicted_id"] != 255]
    assert [CLASSES[i] for i in named["predicted_id"]] == named["predicted_class"].tolist()
    assert [CLASSES[i] for i in rows["true_id"]] == rows["true_class"].tolist()
    matrix = rows.pivot(index="true_id", columns="predicted_id", values="pixels")
    assert [*matrix.columns] == [0, 1, 2, 255]
    counts: npt.NDArray[np.int64] = matrix.to_numpy()
    return counts


def _rows_of(folder: Path, columns: list[str], name: str, split: str, seed: int | None) -> Any:
    rows = pd.read_parquet(folder)
    assert list(rows.columns) == columns
    rows = rows[(rows["variant"] == name) & (rows["split"] == split)]
    rows = rows[rows["seed"].isna() if seed is None else rows["seed"] == seed]
    assert set(rows["run"]) == {"tiny"}
    assert set(rows["kind"]) == {"labeler" if seed is None else "training"}
    return rows
