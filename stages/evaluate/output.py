"""The output of evaluate: where scores are, and how they are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config.config import Config
from pipeline.config.config_section import Facts
from pipeline.config.vocabulary import IGNORE
from pipeline.engine.findings import Findings
from pipeline.records import manifest, part_file
from pipeline.records.redone import Redone
from pipeline.records.tables import CONFUSION, METRICS, Table
from stages.evaluate.check import check_truth
from stages.evaluate.confusion_tables import ConfusionTable, build_confusion_tables
from stages.evaluate.score_key import LABELED_ROLES, SPLITS, ScoreKey
from stages.evaluate.tables import build_tables
from stages.ingest.output import read_images
from stages.labels.score_table import ScoreTable
from stages.pseudolabel.config import PseudolabelConfig
from stages.pseudolabel.output import labels_redone, read_labels
from stages.train.config import TrainConfig

Counts = npt.NDArray[np.int64]


def score_parts(config: Config, key: ScoreKey) -> tuple[Path, Path]:
    """The parts of the manifests metrics and confusion of a score."""
    seed = "" if key.seed is None else f"-seed-{key.seed}"
    name = f"part-score-{key.kind}-{key.name}{seed}-{key.split}.parquet"
    return config.manifests / METRICS.name / name, config.manifests / CONFUSION.name / name


def labeled_roles(config: Config) -> list[str]:
    """The roles whose images are labeled, but for those that report cards are of."""
    section = config.section(PseudolabelConfig)
    return [role for role in LABELED_ROLES if section is not None and role in section.roles]


def labels_shown(config: Config, labeler: str) -> tuple[pa.Table, pa.Table]:
    """Rows of all images of `labeled_roles`, and of a labeler's labels of them."""
    images = read_images(config.manifests, labeled_roles(config))
    return images, read_labels(config.manifests, labeler, images)


def labels_shown_redone(config: Config, labeler: str) -> Facts:
    """The fact of a unit that reads `labels_shown`, if labels were done again on request."""
    roles = labeled_roles(config)
    return labels_redone(config.manifests, labeler, roles, f"labels of {labeler}")


def config_keys(config: Config) -> Iterator[ScoreKey]:
    """Yields the key of every score that the config allows, also of roles without images."""
    train, pseudolabel = config.section(TrainConfig), config.section(PseudolabelConfig)
    for name, variant in ({} if train is None else train.variants).items():
        for seed in variant.seeds:
            yield from (ScoreKey("training", name, seed, split) for split in SPLITS)
    for name in () if pseudolabel is None else pseudolabel.labelers:
        yield from (ScoreKey("labeler", name, None, role) for role in LABELED_ROLES)


def read_scores(config: Config) -> dict[ScoreKey, Mapping[str, float | None]]:
    """Scores by name; None where the images have no pixel whose class is known."""
    return {
        key: {row["name"]: row["value"] for row in manifest.read_part(part, METRICS).to_pylist()}
        for key, part in _parts(config, METRICS)
    }


def read_confusion(config: Config) -> dict[ScoreKey, Counts]:
    """(C, C + 1) pixels by true and predicted class; the last column is of unlabeled pixels."""
    size = config.vocabulary.num_classes
    columns = {**{class_id: class_id for class_id in range(size)}, IGNORE: size}
    found: dict[ScoreKey, Counts] = {}
    for key, part in _parts(config, CONFUSION):
        own = found[key] = np.zeros((size, size + 1), np.int64)
        for row in manifest.read_part(part, CONFUSION).to_pylist():
            column = columns.get(row["predicted_id"])
            if row["true_id"] < size and column is not None:  # else of a longer vocabulary
                own[row["true_id"], column] = row["pixels"]
    return found


def score_tables(config: Config) -> list[ScoreTable]:
    """The tables that compare trainings and labelers; without those that are empty."""
    names, shown = config.vocabulary.class_names, dict[str, set[int]]()
    for key, counts in read_confusion(config).items():
        if key.kind == "training":
            shown.setdefault(key.split, set()).update(np.flatnonzero(counts.sum(axis=1)).tolist())
    single = {split: names[min(ids)] for split, ids in shown.items() if len(ids) == 1}
    return build_tables(config, read_scores(config), single if len(names) > 1 else {})


def score_warnings(config: Config) -> list[str]:
    """Warnings about scores by the label files of val and test; one line each."""
    if "evaluate" not in config.sections:
        return []
    check_truth(config, findings := Findings())
    return findings.warnings


def confusion_tables(config: Config) -> list[ConfusionTable]:
    """Confusion matrices to show: one for each variant, and one for each labeler and role."""
    return build_confusion_tables(config, read_confusion(config))


def scores_digest(config: Config) -> str:
    """A digest of the scores that the config allows, which their tables depend on."""
    found: dict[str, str] = {}
    for table in (METRICS, CONFUSION):
        for key, part in _parts(config, table):
            if (record := part_file.read_record(part)) is not None:
                found[f"{table.name} of {key}"] = record.rows
    return part_file.digest(found)


def scores_redone(config: Config) -> Facts:
    """The fact of a unit that reads the scores, if some were done again on request."""
    counts = Redone(config.manifests)
    return counts.facts("scores", lambda: (part for _, part in _parts(config, METRICS)))


def shown_split(config: Config) -> str | None:
    """The split whose predictions the report shows: the last one that has images."""
    there = read_images(config.manifests, SPLITS)["role"].unique().to_pylist()
    return next((split for split in reversed(SPLITS) if split in there), None)


def _parts(config: Config, table: Table) -> Iterator[tuple[ScoreKey, Path]]:
    """Yields the scores that have a part, with that of a table."""
    names = frozenset(manifest.part_names(config.manifests / table.name))
    for key in config_keys(config):
        (part,) = (each for each in score_parts(config, key) if each.parent.name == table.name)
        if part.name in names:
            yield key, part
