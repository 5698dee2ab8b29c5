"""Report: draws labels and predictions, and writes the page that shows them with all tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.config_section import Facts, Section
from pipeline.engine.findings import Findings
from pipeline.engine.stage import Context, Stage, Unit
from pipeline.errors import error_context
from pipeline.files import storage
from pipeline.records import part_file, tables
from pipeline.records.redone import Redone
from pipeline.records.rows import ReportRow
from pipeline.records.sharded_table import digest_rows
from stages.evaluate.output import (
    labels_shown,
    labels_shown_redone,
    score_warnings,
    scores_digest,
    scores_redone,
    shown_split,
)
from stages.ingest.output import read_images
from stages.models.segmenters.protocol import protocol_of
from stages.pseudolabel.config import PseudolabelConfig
from stages.pseudolabel.output import card_part
from stages.report.config import ReportConfig
from stages.report.output import labels_picture, page_file, predictions_picture
from stages.train.config import TrainConfig
from stages.train.output import TrainingKey, training_digest, training_redone, training_warnings


@dataclass(frozen=True)
class LabelsPictureKey:
    """Key of the picture of a labeler's labels."""

    labeler: str

    def __str__(self) -> str:
        return f"picture of labels of {self.labeler}"


@dataclass(frozen=True)
class PredictionsPictureKey:
    """Key of the picture of predictions on a split."""

    split: str

    def __str__(self) -> str:
        return f"picture of predictions on {self.split}"


@dataclass(frozen=True)
class PageKey:
    """Key of the page."""

    def __str__(self) -> str:
        return "page"


ReportKey = LabelsPictureKey | PredictionsPictureKey | PageKey


class ReportStage(Stage[ReportKey]):
    """Fills artifacts/<run>/report, and the report manifest."""

    name = "report"
    version = 1
    table = tables.REPORT
    Config = ReportConfig
    needs = ("pseudolabel", "evaluate")
    implied_by = "evaluate"

    def __init__(self, section: Section, context: Context) -> None:
        super().__init__(section, context)
        assert isinstance(section, ReportConfig)
        self._section = section
        self._folder = context.config.manifests / tables.REPORT.name

    def rehearse(
        self, findings: Findings, units: Sequence[Unit[ReportKey]] | None, *, downloads: bool
    ) -> None:
        """See `Stage.rehearse`: the device."""
        from stages.models.device import pick_device

        with findings.collecting(), error_context(self.context.config.where("report")):
            pick_device(self._section.device)

    def plan(self) -> list[Unit[ReportKey]]:
        """One unit for each picture, and the page."""
        pictures = [*self._plan_pictures()]
        drawn = part_file.digest([unit.facts for unit in pictures])
        return [*pictures, self._page({**self._page_facts(), "inputs.pictures": drawn})]

    def run(self, units: Sequence[Unit[ReportKey]]) -> None:
        """Draws the pictures that are not fresh, then the page."""
        for left_by_a_killed_run in storage.temporaries(page_file(self.context.config).parent):
            storage.remove(left_by_a_killed_run)
        for unit in units:
            self.clear(unit)
            row = self._make(unit.key)
            self.commit(unit, tables.REPORT.rows([row]))

    def garbage(self) -> list[Path]:
        """Pictures that are not planned, and their parts."""
        plan = self.plan()
        planned = {path for unit in plan for path in (unit.part, *unit.outputs)}
        found = storage.glob(self._folder, "part-*.parquet")
        found += storage.glob(page_file(self.context.config).parent, "*.png")
        return [path for path in found if path not in planned]

    def summarize(self) -> None:
        """Prints the notes, and where the page is."""
        for note in self._section.notes:
            self.context.console.line(f"note: {note}")
        self.context.console.line(f"report: {page_file(self.context.config)}")

    def _plan_pictures(self) -> Iterator[Unit[ReportKey]]:
        config = self.context.config
        colors: Facts = {**self.version_facts, "inputs.palette": self._palette_digest()}
        section = config.section(PseudolabelConfig)
        for name in () if section is None else section.labelers:
            _, labels = labels_shown(config, name)
            if labels.num_rows:
                used = digest_rows(labels.select(["row", "fingerprint"]))
                yield Unit(
                    LabelsPictureKey(name),
                    self._folder / f"part-labels-{name}.parquet",
                    {**colors, "inputs.labels": used, **labels_shown_redone(config, name)},
                    outputs=(labels_picture(config, name),),
                )
        train, split = config.section(TrainConfig), shown_split(config)
        if train is None or split is None:
            return
        facts: Facts = {**colors, "report.variants": list(train.variants)}  # in their order
        for name, variant in train.variants.items():
            protocol = protocol_of(config, variant.published_protocol).facts("evaluate")
            first = {key: facts.setdefault(key, value) for key, value in protocol.items()}
            others = {key: value for key, value in protocol.items() if value != first[key]}
            facts |= {f"{key} of {name}": value for key, value in others.items()}
            digest = training_digest(config, TrainingKey(name, variant.seeds[0]))
            facts[f"inputs.training {name}"] = digest
            facts |= training_redone(config, TrainingKey(name, variant.seeds[0]))
        images = read_images(config.manifests, [split])
        facts |= config.vocabulary.schemes_facts(images["label_scheme"].unique().to_pylist())
        yield Unit(
            PredictionsPictureKey(split),
            self._folder / f"part-predictions-{split}.parquet",
            {**facts, "inputs.images": digest_rows(images.select(["image_id", "mask_id"]))},
            outputs=(predictions_picture(config, split),),
        )

    def _page(self, facts: Facts) -> Unit[ReportKey]:
        outputs = (page_file(self.context.config),)
        return Unit(PageKey(), self._folder / "part-page.parquet", facts, outputs=outputs)

    def _page_facts(self) -> Facts:
        """The facts of the page besides its pictures."""
        config = self.context.config
        train, pseudolabel = config.section(TrainConfig), config.section(PseudolabelConfig)
        variants = {} if train is None else train.variants
        labelers = {} if pseudolabel is None else pseudolabel.labelers
        cards = [part_file.read_record(card_part(config.manifests, name)) for name in labelers]
        facts: Facts = {
            **self.version_facts,
            **self._section.facts("report"),
            "report.config": str(config.path),
            "report.variants": list(variants),
            "report.titles": {name: variant.title or name for name, variant in variants.items()},
            "report.seeds": {name: list(variant.seeds) for name, variant in variants.items()},
            "report.labelers": list(labelers),
            "inputs.scores": scores_digest(config),
            "inputs.report cards": part_file.digest([card.rows for card in cards if card]),
            "inputs.palette": self._palette_digest(),
            **scores_redone(config),
            **Redone(config.manifests).facts(
                "report cards", lambda: (card_part(config.manifests, name) for name in labelers)
            ),
        }
        for name, choice in labelers.items():
            for number, text in enumerate(choice.create(config.vocabulary).warnings()):
                facts[f"report.warnings.{name}.{number}"] = text
        for number, text in enumerate((*training_warnings(config), *score_warnings(config))):
            facts[f"inputs.warnings.{number}"] = text
        return facts

    def _palette_digest(self) -> str:
        """A digest of what the page and the pictures show of the vocabulary."""
        vocabulary = self.context.config.vocabulary
        classes = [[entry.name, entry.color] for entry in vocabulary.classes]
        return part_file.digest([vocabulary.name, classes])

    def _make(self, key: ReportKey) -> ReportRow:
        """Draws or writes a file; returns its row."""
        from stages.report.page import write_page
        from stages.report.pictures import draw_labels, draw_predictions

        config = self.context.config
        if isinstance(key, LabelsPictureKey):
            return draw_labels(config, key.labeler)
        if isinstance(key, PredictionsPictureKey):
            return draw_predictions(config, key.split, self._section.device)
        pictures = [path.name for unit in self._plan_pictures() for path in unit.outputs]
        return write_page(config, self._section.notes, pictures)
