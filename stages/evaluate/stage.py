"""Evaluate: scores every variant on val and test, and every labeler on the labeled images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pipeline import manifest
from pipeline.components import Choice
from pipeline.section import Facts, RunOnly, Section
from pipeline.stage import Context, Stage, Unit
from stages.evaluate.tables import SPLITS, read_tables
from stages.ingest.output import read_images
from stages.pseudolabel.labelers.base import Labeler
from stages.pseudolabel.output import read_labels
from stages.pseudolabel.stage import PseudolabelConfig
from stages.train.config import TrainConfig, VariantConfig
from stages.train.stage import TrainStage

if TYPE_CHECKING:
    from stages.evaluate.inference import Predictor

Rows = list[dict[str, Any]]


class EvaluateConfig(Section):
    """The section `evaluate`."""

    device: Annotated[str, RunOnly] = "auto"
    """cpu, cuda, or auto: a GPU where there is one."""


class EvaluateStage(Stage):
    """Fills the evaluation rows of the metrics manifest and the report."""

    name = "evaluate"
    version = 1
    Config = EvaluateConfig
    needs = ("train",)

    def __init__(self, section: Section, context: Context) -> None:
        super().__init__(section, context)
        assert isinstance(section, EvaluateConfig)
        self._section = section
        self._metrics = context.config.manifests / manifest.METRICS.name
        self._page = context.config.artifacts / "report" / "index.html"

    def plan(self) -> list[Unit]:
        """A unit a training variant, and one a labeler."""
        variants = [self._variant_unit(name) for name in self._variants]
        return variants + [self._labeler_unit(name) for name in self._labelers]

    def run(self, units: Sequence[Unit]) -> None:
        """Scores what is not fresh, then draws the report anew."""
        self._page.unlink(missing_ok=True)  # it comes back last: what has no page is not done
        plain = self._section.model_dump(mode="json")
        with self.context.console.progress("evaluate", len(units), "models") as progress:
            for unit in units:
                kind, _, name = unit.name.partition(" ")
                score = self._score_variant if kind == "variant" else self._score_labeler
                rows = score(name)
                table = manifest.METRICS.rows(rows)
                manifest.write_part(unit.part, table, unit.facts, plain)
                progress.advance()
        self._report()

    def summarize(self) -> None:
        """The tables that compare the variants, and where the report is."""
        for table in read_tables(self.context.config):
            self.context.console.table(table.title, table.header, table.rows)
        self.context.console.line(f"report: {self._page}")

    @property
    def _variants(self) -> dict[str, VariantConfig]:
        section = self.context.config.sections.get("train")
        return section.variants if isinstance(section, TrainConfig) else {}

    @property
    def _labelers(self) -> dict[str, Choice[Labeler]]:
        section = self.context.config.sections.get("pseudolabel")
        return section.labelers if isinstance(section, PseudolabelConfig) else {}

    @property
    def _train(self) -> TrainStage:
        return TrainStage(self.context.config.sections["train"], self.context)

    def _variant_unit(self, name: str) -> Unit:
        rows = read_images(self.context.config.manifests, SPLITS)
        trained = manifest.read_facts(self._metrics / f"part-train-{name}.parquet")
        facts = {**self._facts(rows), "inputs.training": manifest.digest(trained)}
        part = self._metrics / f"part-evaluate-{name}.parquet"
        return Unit(f"variant {name}", part, facts, (self._page,))

    def _labeler_unit(self, name: str) -> Unit:
        rows = read_images(self.context.config.manifests, ["labeled"])
        labels = read_labels(self.context.config.manifests, name)
        used = [labels[row["row"]]["fingerprint"] for row in rows if row["row"] in labels]
        facts = {**self._facts(rows), "inputs.labels": manifest.digest(used)}
        part = self._metrics / f"part-labeler-{name}.parquet"
        return Unit(f"labeler {name}", part, facts, (self._page,))

    def _facts(self, rows: Rows) -> Facts:
        """What scores on these images depend on, beside what is scored."""
        vocabulary = self.context.config.vocabulary
        facts: Facts = {**self.version_facts, **vocabulary.class_facts()}
        for scheme in sorted({row["label_scheme"] for row in rows}, key=str):
            facts |= vocabulary.scheme_facts(scheme)
        content = [[row["image_id"], row["mask_id"]] for row in rows]
        return {**facts, "inputs.images": manifest.digest(content)}

    def _predictor(self, name: str) -> Predictor:
        from stages.evaluate.inference import Predictor

        model, vocabulary = self._variants[name].model, self.context.config.vocabulary
        return Predictor.load(model, self._train.weights(name), vocabulary, self._section.device)

    def _report(self) -> None:
        from stages.evaluate.report.page import write_page
        from stages.evaluate.report.pictures import draw_labels, draw_predictions

        config, folder = self.context.config, self._page.parent
        folder.mkdir(parents=True, exist_ok=True)
        sheets = [draw_labels(config, folder, name) for name in self._labelers]
        pictures = [sheet for sheet in sheets if sheet is not None]
        predictors = {name: self._predictor(name) for name in self._variants}
        splits = [split for split in SPLITS if read_images(config.manifests, [split])]
        if predictors and splits:
            pictures.append(draw_predictions(config, folder, splits[-1], predictors))
        warnings = {
            name: choice.create(config.vocabulary).warnings()
            for name, choice in self._labelers.items()
        }
        write_page(config, self._page, pictures, warnings)

    def _score_variant(self, name: str) -> Rows:
        """A row a split and score."""
        from stages.evaluate.confusion import Confusion
        from stages.evaluate.inference import read_pixels, read_truth

        config = self.context.config
        predictor = self._predictor(name)
        rows: Rows = []
        for split in SPLITS:
            confusion = Confusion.empty(config.vocabulary.num_classes)
            images = read_images(config.manifests, [split])
            for image in images:
                predicted = predictor.predict(read_pixels(image))
                confusion.add(read_truth(image, config.vocabulary), predicted)
            if images:
                place = {"variant": name, "step": self._variants[name].steps, "split": split}
                rows += self._rows(place, confusion.scores(config.vocabulary.class_names))
        return rows

    def _score_labeler(self, name: str) -> Rows:
        """A row a score of the labeler on the labeled images, which it never saw labels of."""
        from pipeline.overlay import resized
        from pipeline.store import LabelReader
        from stages.evaluate.confusion import Confusion
        from stages.evaluate.inference import read_truth

        config = self.context.config
        confusion = Confusion.empty(config.vocabulary.num_classes)
        labels = read_labels(config.manifests, name)
        images = read_images(config.manifests, ["labeled"])
        for image in (image for image in images if image["row"] in labels):
            label = labels[image["row"]]
            reader = LabelReader(config.run.workspace / label["store"])
            size = (label["height"], label["width"])
            ((mask, _),) = reader.read([label["row"]], [size])
            truth = read_truth(image, config.vocabulary)
            confusion.add(truth, resized(mask, truth.shape[0], truth.shape[1]))
        place = {"variant": name, "split": "labeled"}
        return self._rows(place, confusion.scores(config.vocabulary.class_names))

    def _rows(self, place: dict[str, Any], scores: dict[str, float]) -> Rows:
        run = {"run": self.context.config.run.run}
        return [{**run, **place, "name": key, "value": value} for key, value in scores.items()]
