"""Pseudolabel: runs every configured labeler over the images of its roles, shard by shard."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from pipeline.config.config_section import Facts, Section
from pipeline.engine.findings import Findings
from pipeline.engine.shard_stage import ShardStage
from pipeline.engine.stage import Context, Unit
from pipeline.errors import StorageError, error_context
from pipeline.files import storage
from pipeline.records import arrays, manifest, part_file, tables
from pipeline.records.label_store import LabelStore, unused_files
from pipeline.records.part_file import IMAGES_FACT
from pipeline.records.redone import Redone
from pipeline.records.rows import LabelRow
from pipeline.records.sharded_table import ShardedTable
from stages.ingest.output import read_shards
from stages.propose.output import proposals_part
from stages.pseudolabel.check import PseudolabelCheck, rounds_of
from stages.pseudolabel.config import PseudolabelConfig, labeler_key
from stages.pseudolabel.label_facts import LabelFacts
from stages.pseudolabel.output import labeler_cache, labels_folder, labels_part
from stages.pseudolabel.report_card_units import CardKey, ReportCards

if TYPE_CHECKING:
    from stages.pseudolabel.task import ShardTask


@dataclass(frozen=True)
class LabelsKey:
    """Key of a unit that is one labeler's labels of one shard."""

    labeler: str
    shard: int

    def __str__(self) -> str:
        return f"{self.labeler} shard {self.shard}"


PseudolabelKey = LabelsKey | CardKey


class PseudolabelStage(ShardStage[PseudolabelKey, "ShardTask", LabelRow]):
    """Fills the label store, the pseudo_labels manifest and the report cards."""

    name = "pseudolabel"
    version = 1
    table = tables.PSEUDO_LABELS
    Config = PseudolabelConfig
    needs = ("ingest", "propose")

    def __init__(self, section: Section, context: Context) -> None:
        super().__init__(section, context)
        assert isinstance(section, PseudolabelConfig)
        self._section = section
        self._made_from: dict[Path, Facts] = {}
        """The facts of the shards that are being labeled, by part."""

    def check(self, findings: Findings, pending: Collection[str]) -> None:
        """See `Stage.check`: keys, weights and concepts, and once ingest is done images."""
        check = PseudolabelCheck(self.context.config, self._section, findings)
        check.keys()
        if "ingest" not in pending:
            check.images()
        if not {"ingest", "propose"} & {*pending}:
            check.masks()

    def rehearse(
        self, findings: Findings, units: Sequence[Unit[PseudolabelKey]] | None, *, downloads: bool
    ) -> None:
        """See `Stage.rehearse`: the device, and each labeler's model."""
        from stages.models.device import pick_device

        if self.context.config.run.cluster.address is not None:
            return  # workers elsewhere have other devices and files
        with findings.collecting(), error_context(self.context.config.where("pseudolabel")):
            pick_device(self._section.device)
        names = {*self._section.labelers}
        if units is not None:
            names = {unit.key.labeler for unit in units if isinstance(unit.key, LabelsKey)}
        for name in sorted(names):
            with findings.collecting(), error_context(labeler_key(name)):
                labeler = self._section.labelers[name].create(self.context.config.vocabulary)
                if downloads:
                    labeler.fetch(self.context.console)
                labeler.rehearse(downloads=downloads)

    def plan(self) -> list[Unit[PseudolabelKey]]:
        """One unit for each labeler and shard with images to label, then the report cards."""
        return [*self._labels, *self._cards.units]

    def run(self, units: Sequence[Unit[PseudolabelKey]]) -> None:
        """Labels shards on the cluster, members of ensembles first; then makes report cards."""
        from stages.pseudolabel.work import label_shard

        work = [(unit.key.labeler, unit) for unit in units if isinstance(unit.key, LabelsKey)]
        for name in dict.fromkeys(name for name, _ in work):
            self._label_facts.check_one_version(name, {unit.part for _, unit in work})
            self._stores[name].grow(1 + self.images.shards[-1])
        for names in rounds_of(self.context.config, self._section):
            self.run_units([unit for name, unit in work if name in names], label_shard)
        asked = {unit.part for unit in units}
        for unit in self._cards.units:
            if unit.part in asked or self._cards.follows(unit):
                rows, failed = self._cards.score(unit.key)
                facts = self._cards.facts_read(unit)
                self.commit(unit, tables.REPORT_CARD.rows(rows), failed=failed, facts=facts)

    def task(self, unit: Unit[PseudolabelKey]) -> ShardTask:
        """See `ShardStage.task`."""
        from stages.pseudolabel.task import ShardTask

        key = unit.key
        assert isinstance(key, LabelsKey)
        manifests, workspace = self.context.config.manifests, self.context.config.run.workspace
        store = self._stores[key.labeler]
        facts = self._label_facts.read(key.labeler, key.shard)
        facts[IMAGES_FACT] = unit.facts[IMAGES_FACT]
        self._made_from[unit.part] = facts
        return ShardTask(
            shard=key.shard,
            images=self.images[key.shard].to_pylist(),
            key=labeler_key(key.labeler),
            labeler=self._section.labelers[key.labeler],
            weights=self._label_facts.weights(key.labeler),
            vocabulary=self.context.config.vocabulary,
            proposals=proposals_part(manifests, key.shard),
            members={
                name: labels_part(manifests, name, key.shard)
                for name in self._label_facts.members(key.labeler)
            },
            workspace=workspace,
            store=store,
            store_name=storage.relative(store.path, workspace),
            cache=labeler_cache(self.context.config),
            fingerprint=part_file.digest(facts),
            max_side_px=self._section.max_side_px,
            batch_size=self._section.batch_size,
            device=self._section.device,
        )

    def commit_rows(self, unit: Unit[PseudolabelKey], rows: list[LabelRow]) -> None:
        """See `ShardStage.commit_rows`."""
        assert isinstance(unit.key, LabelsKey)
        failed = self._num_retried(unit.key, rows)
        facts = self._made_from.pop(unit.part)
        store = self._stores[unit.key.labeler].path
        named = {(row["shard"], row["store"], row["fingerprint"]) for row in rows}
        workspace = self.context.config.run.workspace
        if named != {(unit.shard, storage.relative(store, workspace), part_file.digest(facts))}:
            what = "the worker returned rows of another task"
            raise StorageError(what, where=unit.name, fix="run again; stop old workers first")
        versions = self._label_facts.versions(unit.key.labeler)
        table = tables.PSEUDO_LABELS.rows(rows)
        self.commit(unit, table, failed=failed, facts=facts, versions=versions)

    def misleads(self, unit: Unit[PseudolabelKey]) -> bool:
        """See `Stage.misleads`: whole chunks may be those of other images."""
        from pipeline.records.label_reader import LabelReader, StoredLabel

        if not isinstance(unit.key, LabelsKey):
            return False
        workspace = self.context.config.run.workspace
        try:
            rows = manifest.read_part(unit.part, tables.PSEUDO_LABELS).to_pylist()
            good = [row for row in rows if row["status"] == "ok"]
            LabelReader().read([StoredLabel.of(workspace, row) for row in good])
        except StorageError:
            return False
        return True

    def damage(self) -> list[str]:
        """See `Stage.damage`: what describes the arrays of the label stores."""
        from pipeline.records.label_documents import damaged_documents

        damaged = (path for store in self._stores.values() for path in damaged_documents(store))
        return [f"{path}: missing or damaged; it describes labels" for path in damaged]

    def repair(self) -> None:
        """See `Stage.repair`."""
        from pipeline.records.label_documents import restore_documents

        for store in self._stores.values():
            restore_documents(store)

    def garbage(self) -> list[Path]:
        """Parts and stores of labelers that the config lacks, labels that no part points to."""
        folders = storage.glob(
            self.context.config.manifests / tables.PSEUDO_LABELS.name, "labeler=*"
        )
        known = {self._folder(name) for name in self._section.labelers}
        found = [folder for folder in folders if folder not in known]
        found += self._cards.unplanned()
        workspace = self.context.config.run.workspace
        used: dict[Path, set[int]] = {store.path: set() for store in self._stores.values()}
        for name in self._section.labelers:
            folder = self._folder(name)
            table = manifest.read_undamaged(folder, tables.PSEUDO_LABELS, ["store", "shard"])
            for row in table.group_by(["store", "shard"]).aggregate([]).to_pylist():
                used.setdefault(workspace / row["store"], set()).add(row["shard"])
            # The labels of a damaged part stay until they are made again.
            whole = {part_file.part_name(shard) for shard in table["shard"].unique().to_pylist()}
            damaged = {folder / part for part in manifest.part_names(folder)} - {
                folder / part for part in whole
            }
            used[self._stores[name].path] |= {
                unit.shard
                for unit in self._labels
                if unit.part in damaged and unit.shard is not None
            }
        for labeler in storage.glob(self._stores_folder, "*.zarr"):
            groups = {group for group in used if group.parent == labeler}
            if labeler.stem not in self._section.labelers:
                found.append(labeler)
                continue
            found += [path for path in labeler.iterdir() if path.is_dir() and path not in groups]
            for group in groups:
                found += unused_files(group, used[group])
        return found

    def summarize(self) -> None:
        """Prints coverage, confidence and speed of each labeler, and the report cards."""
        rows = []
        for name in self._section.labelers:
            columns = ["status", "coverage", "mean_confidence", "seconds"]
            labels = manifest.read(self._folder(name), tables.PSEUDO_LABELS, columns)
            good = arrays.having(labels, "status", "ok")
            shares = [pc.sum(good[column]).as_py() for column in columns[1:3]]
            shown = [
                f"{(share or 0) / good.num_rows:.3f}" if good.num_rows else "-" for share in shares
            ]
            seconds = pc.sum(good["seconds"]).as_py()
            speed = f"{good.num_rows / seconds:.1f}" if seconds else "-"
            counts = (str(good.num_rows), str(labels.num_rows - good.num_rows))
            rows.append((name, *counts, *shown, speed))
        header = ("labeler", "images", "failed", "coverage", "confidence", "images/s")
        self.context.console.table(f"pseudo-labels in {self._stores_folder}", header, rows)
        self._cards.show()

    @cached_property
    def images(self) -> ShardedTable:
        """See `ShardStage.images`."""
        return read_shards(self.context.config, {*self._section.roles, "labeled"})

    @cached_property
    def folders(self) -> dict[Path, tuple[str, ...]]:
        """See `ShardStage.folders`."""
        return {
            self._folder(name): ("row", "image_id", "mask_id")
            if self._needs_label_files(name)
            else ("row", "image_id")
            for name in self._section.labelers
        }

    @cached_property
    def _stores_folder(self) -> Path:
        return self.context.config.artifacts / "pseudo_labels"

    def _folder(self, labeler: str) -> Path:
        return labels_folder(self.context.config.manifests, labeler)

    @cached_property
    def _label_facts(self) -> LabelFacts:
        config, section = self.context.config, self._section
        return LabelFacts(config, section, self.version_facts, lambda: self.images)

    @cached_property
    def _facts(self) -> dict[str, Facts]:
        """The planned facts of each labeler's labels besides the images."""
        return {name: self._label_facts.planned(name) for name in self._section.labelers}

    @cached_property
    def _stores(self) -> dict[str, LabelStore]:
        """Each labeler's store; labels of another config have a group of their own."""
        shard_size, size_px = self.images.shard_size, self._section.size_px
        folder = self._stores_folder
        return {
            name: LabelStore(folder / f"{name}.zarr" / part_file.digest(facts), shard_size, size_px)
            for name, facts in self._facts.items()
        }

    @cached_property
    def _labels(self) -> list[Unit[PseudolabelKey]]:
        return [unit for name in self._section.labelers for unit in self._plan_labeler(name)]

    def _plan_labeler(self, name: str) -> Iterator[Unit[PseudolabelKey]]:
        facts, store, folder = self._facts[name], self._stores[name], self._folder(name)
        versions = self._label_facts.versions(name)
        counts = Redone(self.context.config.manifests)
        for shard, digest in self.images.digests(self.folders[folder]).items():
            yield Unit(
                LabelsKey(name, shard),
                folder / part_file.part_name(shard),
                {**facts, **self._label_facts.redone(name, shard, counts), IMAGES_FACT: digest},
                outputs=(store.shard_file(shard, "mask"), store.shard_file(shard, "confidence")),
                shard=shard,
                versions=versions,
            )

    @cached_property
    def _cards(self) -> ReportCards:
        return ReportCards(self.context, self.images, self._label_facts, self._facts)

    def _num_retried(self, key: LabelsKey, rows: Sequence[LabelRow]) -> int:
        """Number of images that failed although ingest found all that the labeler needs."""
        failed = {row["row"] for row in rows if row["status"] == "failed"}
        if self._needs_label_files(key.labeler):
            images = self.images.rows(key.shard)
            failed -= {image["row"] for image in images if image["mask_uri"] is None}
        return len(failed)

    def _needs_label_files(self, name: str) -> bool:
        """Whether a labeler's labels come from label files, directly or through its members."""
        needs = self._section.labelers[name].component.needs_label_files
        members = self._label_facts.members(name)
        return needs or any(self._needs_label_files(member) for member in members)
