"""The output of train: where trainings are, and what their records say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.config import Config
from pipeline.config.config_section import Facts
from pipeline.engine.findings import Findings
from pipeline.errors import StorageError
from pipeline.files import storage
from pipeline.files.checksum import checksum_of_bytes
from pipeline.records import manifest, part_file, tables
from pipeline.records.redone import Redone
from pipeline.records.rows import MetricRow
from stages.train.check import TrainCheck
from stages.train.config import TrainConfig
from stages.train.scoring_check import check_protocols


@dataclass(frozen=True)
class TrainingKey:
    """Key of a training: its variant and seed."""

    variant: str
    seed: int

    def __str__(self) -> str:
        return f"{self.variant} seed {self.seed}"


@dataclass(frozen=True)
class TrainingFiles:
    """The files of one training.

    Attributes:
        folder: The folder of all of them; its name is the digest of the training's facts.
    """

    folder: Path

    @property
    def weights(self) -> Path:
        """The model file with the EMA weights after the last step."""
        return self.folder / "model.safetensors"

    @property
    def best(self) -> Path:
        """The model file with the EMA weights that scored best on val, if val was scored."""
        return self.folder / "best.safetensors"

    @property
    def state(self) -> Path:
        """The checkpoint that the training continues from."""
        return self.folder / "last.pt"

    @property
    def log(self) -> Path:
        """The training log, as JSON lines."""
        return self.folder / "log.jsonl"

    @property
    def events(self) -> Path:
        """The folder of TensorBoard's event files."""
        return self.folder / "events"

    @property
    def facts(self) -> Path:
        """The training's facts as JSON, to tell an unfinished training from others."""
        return self.folder / "facts.json"


@dataclass(frozen=True)
class Training:
    """A finished training, by its record.

    Attributes:
        key: Variant and seed.
        facts: What it was made from.
        files: Its files.
        steps: Its length.
        best_step: The step whose weights scored best on val; None if val was not scored.
    """

    key: TrainingKey
    facts: Facts
    files: TrainingFiles
    steps: int
    best_step: int | None


def trainings_folder(config: Config, key: TrainingKey) -> Path:
    """The folder of a variant and seed, with a folder for each digest of facts."""
    return config.artifacts / "checkpoints" / key.variant / f"seed-{key.seed}"


def training_files(config: Config, key: TrainingKey, facts: Facts) -> TrainingFiles:
    """The files of a training with these facts."""
    return TrainingFiles(trainings_folder(config, key) / part_file.digest(facts))


def training_part(config: Config, key: TrainingKey) -> Path:
    """The part of the metrics manifest that a training commits."""
    folder = config.manifests / tables.METRICS.name
    return folder / f"part-train-{key.variant}-seed-{key.seed}.parquet"


def training_digest(config: Config, key: TrainingKey) -> str:
    """A digest of the facts and weights of the finished training, or of its absence."""
    record = part_file.read_record(training_part(config, key))
    return part_file.digest(None if record is None else [record.facts, dict(record.files)])


def check_weights(config: Config, key: TrainingKey, file: Path) -> None:
    """Compares a file of weights with the record of its training; a missing one is not compared.

    Raises:
        StorageError: It is not the file that the training wrote.
    """
    part = training_part(config, key)
    record = part_file.read_record(part)
    expected = None if record is None else record.files.get(storage.relative(file, part.parent))
    if expected is not None and file.exists() and checksum_of_bytes(file) != expected:
        what = "these are not the weights that the training wrote"
        raise StorageError(what, where=str(file), fix="restore them with: maskmill verify --rerun")


def training_redone(config: Config, key: TrainingKey) -> Facts:
    """The fact of a unit that reads a training, if it was done again on request."""
    counts = Redone(config.manifests)
    return counts.facts(f"training {key}", lambda: [training_part(config, key)])


def read_training(config: Config, key: TrainingKey) -> Training | None:
    """The finished training of a variant and seed; None if there is none.

    Raises:
        StorageError: Its record is damaged.
    """
    part = training_part(config, key)
    facts = part_file.read_facts(part)
    if facts is None:
        return None
    rows: list[MetricRow] = manifest.read_part(part, tables.METRICS).to_pylist()
    steps = max(row["step"] or 0 for row in rows)
    scored = [row for row in rows if row["split"] == "val" and row["name"] == "miou"]
    scores = [(row["value"], row["step"]) for row in scored if row["value"] is not None]
    _, best_step = max(scores, key=lambda pair: pair[0], default=(None, None))
    return Training(key, facts, training_files(config, key, facts), steps, best_step)


def training_warnings(config: Config) -> list[str]:
    """Warnings about trainings by their keys, images and label files; one line each."""
    if (section := config.section(TrainConfig)) is None:
        return []
    findings = Findings()
    check_protocols(config, section, findings)
    check = TrainCheck(config, section, findings)
    with findings.collecting():
        check.images()
        check.labels()
        check.results()
    return findings.warnings


def unfinished_trainings(config: Config, key: TrainingKey) -> Iterator[tuple[TrainingFiles, Facts]]:
    """Yields the trainings of a variant and seed that were started and not finished."""
    for folder in storage.glob(trainings_folder(config, key), "*"):
        files = TrainingFiles(folder)
        if files.state.exists() and files.facts.exists() and not files.weights.exists():
            yield files, json.loads(storage.read_bytes(files.facts))
