"""The output of evaluate: where scores are, and how they are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config.config import Config
from pipeline.config.vocabulary import IGNORE
from pipeline.records import manifest, part_file, tables
from stages.evaluate.confusion_tables import ConfusionTable, build_confusion_tables
from stages.evaluate.score_key import LABELED_ROLES, SPLITS, ScoreKey
from stages.evaluate.tables import build_tables
from stages.ingest.output import read_images
from stages.labels.score_table import ScoreTable
from stages.pseudolabel.output import of_rows, read_labels

Counts = npt.NDArray[np.int64]


def score_parts(config: Config, key: ScoreKey) -> tuple[Path, Path]:
    """The parts of the manifests metrics and confusion of a score."""
    seed = "" if key.seed is None else f"-seed-{key.seed}"
    name = f"part-score-{key.kind}-{key.name}{seed}-{key.split}.parquet"
    metrics, confusion = tables.METRICS.name, tables.CONFUSION.name
    return config.manifests / metrics / name, config.manifests / confusion / name


def labels_shown(config: Config, labeler: str) -> tuple[pa.Table, pa.Table]:
    """Rows of all images of `LABELED_ROLES`, and of a labeler's labels of them."""
    images = read_images(config.manifests, LABELED_ROLES)
    return images, of_rows(read_labels(config.manifests, labeler), images)


def read_scores(config: Config) -> dict[ScoreKey, Mapping[str, float | None]]:
    """Scores by name; None where the images have no pixel whose class is known."""
    found: dict[ScoreKey, dict[str, float | None]] = {}
    for part in _parts(config, tables.METRICS):
        for row in manifest.read_part(part, tables.METRICS).to_pylist():
            key = ScoreKey(row["kind"], row["variant"], row["seed"], row["split"])
            found.setdefault(key, {})[row["name"]] = row["value"]
    return {**found}


def read_confusion(config: Config) -> dict[ScoreKey, Counts]:
    """(C, C + 1) pixels by true and predicted class; the last column is of unlabeled pixels."""
    size = config.vocabulary.num_classes
    found: dict[ScoreKey, Counts] = {}
    for part in _parts(config, tables.CONFUSION):
        for row in manifest.read_part(part, tables.CONFUSION).to_pylist():
            key = ScoreKey(row["kind"], row["variant"], row["seed"], row["split"])
            own = found.setdefault(key, np.zeros((size, size + 1), np.int64))
            column = size if row["predicted_id"] == IGNORE else row["predicted_id"]
            if max(row["true_id"], column) <= size:  # else of a vocabulary that was longer
                own[row["true_id"], column] = row["pixels"]
    return found


def score_tables(config: Config) -> list[ScoreTable]:
    """The tables that compare trainings and labelers; without those that are empty."""
    return build_tables(config, read_scores(config))


def confusion_tables(config: Config) -> list[ConfusionTable]:
    """Confusion matrices to show: one for each variant, and one for each labeler and role."""
    return build_confusion_tables(config, read_confusion(config))


def scores_digest(config: Config) -> str:
    """A digest of all scores, which their tables depend on."""
    parts = [*_parts(config, tables.METRICS), *_parts(config, tables.CONFUSION)]
    records = [part_file.read_record(part) for part in parts]
    return part_file.digest([record.rows for record in records if record is not None])


def shown_split(config: Config) -> str | None:
    """The split whose predictions the report shows: the last one that has images."""
    there = read_images(config.manifests, SPLITS)["role"].unique().to_pylist()
    return next((split for split in reversed(SPLITS) if split in there), None)


def _parts(config: Config, table: tables.Table) -> Iterator[Path]:
    folder = config.manifests / table.name
    for name in manifest.part_names(folder):
        if name.startswith("part-score-"):
            yield folder / name
