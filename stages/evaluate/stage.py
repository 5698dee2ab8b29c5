"""Evaluate: scores every training on val and test, and labelers on what else has a label file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.components import Choice
from pipeline.config.config_section import Facts, RunOnly, Section
from pipeline.engine.stage import Context, Stage, Unit
from pipeline.records import manifest, tables
from pipeline.records.sharded_table import digest_rows
from stages.evaluate.report_contents import labels_file, predictions_file, shown_labels, shown_split
from stages.evaluate.tables import BEST, PARTS, SPLITS, read_tables
from stages.ingest.output import read_images
from stages.models.segmenters.protocol import Protocol
from stages.pseudolabel.labelers.base import Labeler
from stages.pseudolabel.output import card_part, of_rows
from stages.pseudolabel.stage import PseudolabelConfig
from stages.train.config import TrainConfig, VariantConfig
from stages.train.stage import TrainStage

if TYPE_CHECKING:
    from stages.models.segmenters.predictor import Predictor

Rows = list[dict[str, Any]]

_LABELER = "labeler "
"""What the names of units begin with that score a labeler."""


class EvaluateConfig(Protocol):
    """The section `evaluate`: how images are predicted, and what is said of the scores."""

    device: Annotated[str, RunOnly] = "auto"
    """cpu, cuda, or auto: a GPU where there is one."""
    notes: Annotated[tuple[str, ...], RunOnly] = ()
    """What a reader of the tables should know; printed below them, and on the report's page."""


class EvaluateStage(Stage):
    """Fills the evaluation rows of the metrics manifest, confusion matrices and the report."""

    name = "evaluate"
    version = 5
    table = tables.METRICS
    Config = EvaluateConfig
    needs = ("train",)

    def __init__(self, section: Section, context: Context) -> None:
        super().__init__(section, context)
        assert isinstance(section, EvaluateConfig)
        self._section = section
        self._metrics = context.config.manifests / tables.METRICS.name
        self._confusion = context.config.manifests / tables.CONFUSION.name
        self._page = context.config.artifacts / "report" / "index.html"

    def plan(self) -> list[Unit]:
        """A unit a training, and one a labeler."""
        trainings = [self._training_unit(*key) for key in self._trainings.values()]
        return trainings + [self._labeler_unit(name) for name in self._labelers]

    def run(self, units: Sequence[Unit]) -> None:
        """Scores what is not fresh, then draws the report anew."""
        self._page.unlink(missing_ok=True)  # it comes back last: what has no page is not done
        plain = self._section.model_dump(mode="json")
        with self.context.console.progress("evaluate", len(units), "models") as progress:
            for unit in units:
                if unit.name in self._trainings:
                    metrics, cells = self._score_training(*self._trainings[unit.name])
                else:
                    metrics, cells = self._score_labeler(unit.name.removeprefix(_LABELER))
                # The part speaks for its confusion matrices too, so they come first.
                matrices = self._matrices(unit.part)
                unit.part.unlink(missing_ok=True)
                manifest.write_part(matrices, tables.CONFUSION.rows(cells), unit.facts, plain)
                table = tables.METRICS.rows(metrics)
                manifest.write_part(unit.part, table, unit.facts, plain, files=(matrices,))
                progress.advance()
        self._report()

    def garbage(self) -> list[Path]:
        """Scores of trainings and labelers that the config has not."""
        parts = [unit.part for unit in self.plan()]
        planned = {*parts, *map(self._matrices, parts)}
        folders = (self._metrics, self._confusion)
        found = (path for folder in folders for kind in PARTS for path in folder.glob(kind))
        return [path for path in found if path not in planned]

    def summarize(self) -> None:
        """The tables that compare the variants, what to know of them, and where the report is."""
        for table in read_tables(self.context.config):
            self.context.console.table(table.title, table.header, table.rows)
        for note in self._section.notes:
            self.context.console.line(f"note: {note}")
        self.context.console.line(f"report: {self._page}")

    @property
    def _variants(self) -> dict[str, VariantConfig]:
        section = self.context.config.sections.get("train")
        return section.variants if isinstance(section, TrainConfig) else {}

    @property
    def _trainings(self) -> dict[str, tuple[str, int]]:
        """Variant and seed of each unit that scores a training, by its name."""
        variants = self._variants.items()
        return {
            f"variant {name} seed {seed}": (name, seed)
            for name, variant in variants
            for seed in variant.seeds
        }

    @property
    def _labelers(self) -> dict[str, Choice[Labeler]]:
        section = self.context.config.sections.get("pseudolabel")
        return section.labelers if isinstance(section, PseudolabelConfig) else {}

    @property
    def _train(self) -> TrainStage:
        return TrainStage(self.context.config.sections["train"], self.context)

    def _training_unit(self, name: str, seed: int) -> Unit:
        images = read_images(self.context.config.manifests, SPLITS)
        trained = manifest.read_facts(self._train.part(name, seed))
        facts = {**self._facts(images), **self._section.facts("evaluate")}
        facts["inputs.training"] = manifest.digest(trained)
        part = self._metrics / f"part-evaluate-{name}-seed-{seed}.parquet"
        split = shown_split(images)
        pictures = [] if split is None else [predictions_file(self._page, split)]
        outputs = (*pictures, self._page, self._matrices(part))
        return Unit(f"variant {name} seed {seed}", part, facts, outputs)

    def _labeler_unit(self, name: str) -> Unit:
        others, labels = shown_labels(self.context.config, name)
        images = _measured(others, labels)
        used = digest_rows(of_rows(labels, images).select(["row", "fingerprint"]))
        card = manifest.read_facts(card_part(self.context.config.manifests, name))
        facts = {**self._facts(images), "inputs.labels": used}
        facts["inputs.report card"] = manifest.digest(card)
        part = self._metrics / f"part-labeler-{name}.parquet"
        pictures = [labels_file(self._page, name)] if labels.num_rows else []
        outputs = (*pictures, self._page, self._matrices(part))
        return Unit(f"{_LABELER}{name}", part, facts, outputs)

    def _matrices(self, part: Path) -> Path:
        """The part of the manifest `confusion` that goes with one of `metrics`."""
        return self._confusion / part.name

    def _facts(self, images: pa.Table) -> Facts:
        """What scores on these images depend on, beside what is scored."""
        vocabulary = self.context.config.vocabulary
        facts: Facts = {**self.version_facts, **vocabulary.class_facts()}
        for scheme in sorted(images["label_scheme"].unique().to_pylist(), key=str):
            facts |= vocabulary.scheme_facts(scheme)
        return {**facts, "inputs.images": digest_rows(images.select(["image_id", "mask_id"]))}

    def _predictor(self, name: str, weights: Path) -> Predictor:
        from stages.models.device import pick_device
        from stages.models.segmenters.predictor import Predictor

        model, vocabulary = self._variants[name].model, self.context.config.vocabulary
        device = pick_device(self._section.device)
        fix = "delete it if it is there, then run `maskmill run train`"
        return Predictor.load(model, weights, vocabulary, device, fix, self._section)

    def _report(self) -> None:
        from stages.evaluate.report.page import write_page
        from stages.evaluate.report.pictures import draw_labels, draw_predictions

        config = self.context.config
        split = shown_split(read_images(config.manifests, SPLITS))
        pictures = [
            draw_labels(config, labels_file(self._page, name), name)
            for name in self._labelers
            if shown_labels(config, name)[1].num_rows
        ]
        predictors = {
            name: self._predictor(name, self._train.weights(name, each.seeds[0]))
            for name, each in self._variants.items()
        }
        if predictors and split is not None:
            path = predictions_file(self._page, split)
            pictures.append(draw_predictions(config, path, split, predictors))
        warnings = {
            name: choice.create(config.vocabulary).warnings()
            for name, choice in self._labelers.items()
        }
        write_page(config, self._page, pictures, warnings, self._section.notes)

    def _score_training(self, name: str, seed: int) -> tuple[Rows, Rows]:
        """Rows of `metrics` and of `confusion`: a split after the other."""
        from stages.evaluate.scoring import score_network

        train = self._train
        trained = {"": (train.weights(name, seed), train.steps(name))}
        if (best := train.best_weights(name, seed)) is not None:
            trained[BEST] = (best, train.best_step(name, seed))
        metrics, cells = Rows(), Rows()
        for prefix, (weights, step) in trained.items():
            predictor = self._predictor(name, weights)
            for split in SPLITS:
                if (scores := score_network(self.context.config, split, predictor)) is None:
                    continue
                place = {**self._place(name, split), "seed": seed, "step": step}
                metrics += scores.metric_rows(place, prefix)
                if not prefix:
                    cells += scores.confusion_rows(place)
        return metrics, cells

    def _score_labeler(self, name: str) -> tuple[Rows, Rows]:
        """The same, a role after the other: of images whose label files the labeler never saw."""
        from stages.evaluate.scoring import score_labels

        images = _measured(*shown_labels(self.context.config, name))
        metrics, cells = Rows(), Rows()
        for role, scores in score_labels(self.context.config, name, images).items():
            metrics += scores.metric_rows(self._place(name, role))
            cells += scores.confusion_rows(self._place(name, role))
        return metrics, cells

    def _place(self, variant: str, split: str) -> dict[str, Any]:
        return {"run": self.context.config.run.run, "variant": variant, "split": split}


def _measured(images: pa.Table, labels: pa.Table) -> pa.Table:
    """The images that both a labeler and a person labeled."""
    return of_rows(images.filter(pc.is_valid(images["mask_uri"])), labels)
