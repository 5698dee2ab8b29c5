"""Evaluate: scores every training on val and test, and labelers on all other label files."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from pipeline.config.config_section import Facts, Section
from pipeline.engine.findings import Findings
from pipeline.engine.stage import Context, Stage, Unit
from pipeline.errors import error_context
from pipeline.files import storage
from pipeline.records import arrays, manifest, part_file, tables
from pipeline.records.sharded_table import digest_rows
from stages.evaluate.check import check_splits, check_truth
from stages.evaluate.config import EvaluateConfig
from stages.evaluate.output import config_keys, labeled_roles, score_parts, score_tables
from stages.evaluate.score_key import SPLITS, ScoreKey
from stages.ingest.output import read_images, read_images_with_masks
from stages.models.segmenters.protocol import Protocol, protocol_of
from stages.pseudolabel.config import PseudolabelConfig
from stages.pseudolabel.output import labels_redone, of_rows, read_labels
from stages.train.config import TrainConfig
from stages.train.output import TrainingKey, training_digest, training_redone

_FORMER = re.compile(r"part-(evaluate|labeler)-.*\.parquet")
"""Names of parts of versions up to 5, whose rows would duplicate ours."""


class EvaluateStage(Stage[ScoreKey]):
    """Fills the score rows of the metrics manifest, and the confusion manifest."""

    name = "evaluate"
    version = 6
    table = tables.METRICS
    Config = EvaluateConfig
    needs = ("train",)
    keeps_superseded = True

    def __init__(self, section: Section, context: Context) -> None:
        super().__init__(section, context)
        assert isinstance(section, EvaluateConfig)
        self._section = section

    def check(self, findings: Findings, pending: Collection[str]) -> None:
        """See `Stage.check`: roles, and once ingest is done what the label files can score."""
        check_splits(self.context.config, findings)
        if "ingest" not in pending:
            check_truth(self.context.config, findings)

    def rehearse(
        self, findings: Findings, units: Sequence[Unit[ScoreKey]] | None, *, downloads: bool
    ) -> None:
        """See `Stage.rehearse`: the device."""
        from stages.models.device import pick_device

        with findings.collecting(), error_context(self.context.config.where("evaluate")):
            pick_device(self._section.device)

    def plan(self) -> list[Unit[ScoreKey]]:
        """One unit for each training and split, and for each labeler and role with label files."""
        return [*self._plan_trainings(), *self._plan_labelers()]

    def run(self, units: Sequence[Unit[ScoreKey]]) -> None:
        """Scores what is not fresh, and commits each score."""
        from stages.evaluate.scoring import score_labels, score_training
        from stages.models.device import pick_device

        config = self.context.config
        with self.context.console.progress("evaluate", len(units), "scores") as progress:
            for unit in units:
                key = unit.key
                if key.seed is None:
                    metrics, confusion = score_labels(config, key)
                else:
                    protocol, device = self._protocol(key.name), pick_device(self._section.device)
                    metrics, confusion = score_training(config, key, protocol, device)
                rows, cells = tables.METRICS.rows(metrics), tables.CONFUSION.rows(confusion)
                self.commit(unit, rows, companions=[cells])
                progress.advance()

    def orphans(self) -> list[Path]:
        """Parts of former versions, and scores of roles whose images are all gone."""
        config, planned = self.context.config, {unit.part for unit in self.plan()}
        keys = (score_parts(config, key) for key in config_keys(config))
        unplanned = {
            part for metrics, *rest in keys if metrics not in planned for part in (metrics, *rest)
        }
        folders = [config.manifests / kind.name for kind in self._tables]
        found = [folder / name for folder in folders for name in manifest.part_names(folder)]
        return [part for part in found if part in unplanned or _FORMER.fullmatch(part.name)]

    def garbage(self) -> list[Path]:
        """Scores of trainings and labelers that are not in the config."""
        plan = self.plan()
        planned = {path for unit in plan for path in (unit.part, *unit.companions)}
        folders = (self.context.config.manifests / kind.name for kind in self._tables)
        pattern = "part-score-*.parquet"
        found = (path for folder in folders for path in storage.glob(folder, pattern))
        return [path for path in found if path not in planned]

    def summarize(self) -> None:
        """Prints the tables that compare the variants."""
        for table in score_tables(self.context.config):
            self.context.console.table(table.title, table.header, table.rows)

    _tables = (tables.METRICS, tables.CONFUSION)

    def _plan_trainings(self) -> Iterator[Unit[ScoreKey]]:
        section = self.context.config.section(TrainConfig)
        if section is None:
            return
        images = read_images(self.context.config.manifests, SPLITS)
        by_split = {
            split: self._facts(own)
            for split in SPLITS
            if (own := arrays.having(images, "role", split)).num_rows
        }
        for name, variant in section.variants.items():
            protocol = self._protocol(name).facts("evaluate")
            for seed in variant.seeds:
                key = TrainingKey(name, seed)
                training: Facts = {
                    "inputs.training": training_digest(self.context.config, key),
                    **training_redone(self.context.config, key),
                }
                for split, facts in by_split.items():
                    yield self._unit(
                        ScoreKey("training", name, seed, split), facts | protocol | training
                    )

    def _plan_labelers(self) -> Iterator[Unit[ScoreKey]]:
        section = self.context.config.section(PseudolabelConfig)
        if section is None:
            return
        manifests = self.context.config.manifests
        roles = labeled_roles(self.context.config)
        images = read_images_with_masks(manifests, roles)
        for name in section.labelers if images.num_rows else ():
            labels = read_labels(manifests, name, images)
            with_files = of_rows(images, labels)
            for role in roles:
                own = arrays.having(with_files, "role", role)
                if own.num_rows:
                    used = digest_rows(of_rows(labels, own).select(["row", "fingerprint"]))
                    facts = {**self._facts(own), "inputs.labels": used}
                    facts |= labels_redone(manifests, name, [role], f"labels of {name}")
                    yield self._unit(ScoreKey("labeler", name, None, role), facts)

    def _protocol(self, variant: str) -> Protocol:
        section = self.context.config.section(TrainConfig)
        assert section is not None
        return protocol_of(self.context.config, section.variants[variant].published_protocol)

    def _unit(self, key: ScoreKey, facts: Facts) -> Unit[ScoreKey]:
        metrics, confusion = score_parts(self.context.config, key)
        versions = part_file.installed(("torch",))
        return Unit(key, metrics, facts, companions=(confusion,), versions=versions)

    def _facts(self, images: pa.Table) -> Facts:
        """The facts of scores on these images besides the model."""
        vocabulary = self.context.config.vocabulary
        facts: Facts = {**self.version_facts, **vocabulary.class_facts()}
        facts |= vocabulary.schemes_facts(images["label_scheme"].unique().to_pylist())
        return {**facts, "inputs.images": digest_rows(images.select(["image_id", "mask_id"]))}
