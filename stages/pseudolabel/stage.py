"""Pseudolabel: runs every configured labeler over the images of its roles, shard by shard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import pyarrow.compute as pc
from pydantic import Field

from pipeline.config.components import Choice, chosen_from
from pipeline.config.config_section import Facts, Name, RunOnly, Section
from pipeline.engine.stage import Context, Stage, Unit
from pipeline.engine.staleness import count_image_changes
from pipeline.errors import ConfigError, error_context
from pipeline.files import storage
from pipeline.records import arrays, manifest, tables
from pipeline.records.label_store import LabelStore, unused_files
from pipeline.records.sharded_table import ShardedTable
from stages.ingest.config import Role
from stages.ingest.output import Rows, read_shards
from stages.propose.config import ProposeConfig
from stages.propose.output import proposals_part
from stages.propose.stage import ProposeStage
from stages.pseudolabel.dependency_rounds import rounds
from stages.pseudolabel.labelers.base import Labeler
from stages.pseudolabel.output import labeler_cache, labels_folder, labels_part
from stages.pseudolabel.report_card import ReportCards

if TYPE_CHECKING:
    from stages.pseudolabel.task import ShardTask

LabelerChoice = Annotated[Choice[Labeler], *chosen_from("stages.pseudolabel.labelers", Labeler)]


class PseudolabelConfig(Section):
    """The section `pseudolabel`."""

    labelers: dict[Name, LabelerChoice] = Field(min_length=1)
    """Labelers by the name that their labels get; `name:` picks the component."""
    roles: tuple[Role, ...] = ("ood",)
    """Images to label for training. Labeled images are labeled too, to measure the labels on."""
    size_px: Annotated[int, Field(ge=32, le=4096, multiple_of=4)] = 512
    """Side of the stored masks: images are scaled so that their long side is this."""
    batch_size: Annotated[int, Field(ge=1), RunOnly] = 16
    """Images a batch."""
    device: Annotated[str, RunOnly] = "auto"
    """cpu, cuda, or auto: a GPU where there is one."""


@dataclass(frozen=True)
class _Planned:
    """A shard of one labeler: the unit, and what it takes to do it."""

    unit: Unit
    labeler: str
    shard: int
    store: LabelStore


class PseudolabelStage(Stage):
    """Fills the label store and the pseudo_labels manifest."""

    name = "pseudolabel"
    version = 1
    table = tables.PSEUDO_LABELS
    Config = PseudolabelConfig
    needs = ("ingest", "propose")
    picks_shards = True

    def __init__(self, section: Section, context: Context) -> None:
        super().__init__(section, context)
        assert isinstance(section, PseudolabelConfig)
        self._section = section
        for name, choice in section.labelers.items():
            if choice.component.needs_proposals:
                self._check_proposals(_key(name))
        self._members = {
            name: choice.create(context.config.vocabulary).members
            for name, choice in section.labelers.items()
        }
        where = f"{context.config.path}: pseudolabel.labelers"
        self._rounds = rounds(self._members, where)

    def plan(self) -> list[Unit]:
        """A unit a labeler and shard that holds images to label, then the report cards."""
        return [*(planned.unit for planned in self._planned), *self._cards.units.values()]

    def run(self, units: Sequence[Unit]) -> None:
        """Labels shards on the cluster, each committed when its masks are stored; then judges."""
        config, console = self.context.config, self.context.console
        for name, choice in self._section.labelers.items():
            for warning in choice.create(config.vocabulary).warnings():
                console.warn(f"labeler {name}: {warning}")
        wanted = {unit.part for unit in units}
        if work := [planned for planned in self._planned if planned.unit.part in wanted]:
            self._label(work)
        self._cards.write(units)

    def _label(self, work: Sequence[_Planned]) -> None:
        from pipeline.engine.run_shards import ShardWork, run_shards
        from stages.pseudolabel.task import label_shard

        config = self.context.config
        if config.run.cluster.address is None:  # workers elsewhere fetch their own
            for name in sorted({planned.labeler for planned in work}):
                labeler = self._section.labelers[name].create(config.vocabulary)
                with error_context(_key(name)):
                    labeler.fetch(self.context.console)
        for store in {planned.store for planned in work}:
            store.grow(1 + max(planned.shard for planned in self._planned))
        for planned in work:
            if any(output.exists() for output in planned.unit.outputs):
                # Its labels are replaced in place: a part beside half-written ones would be fresh
                # again as soon as its images are.
                planned.unit.part.unlink(missing_ok=True)
        plain = self._section.model_dump(mode="json")

        by_part = {item.unit.part: item for item in work}

        def commit(unit: Unit, rows: Rows) -> None:
            manifest.write_part(
                unit.part,
                tables.PSEUDO_LABELS.rows(rows),
                unit.facts,
                plain,
                files=unit.outputs,
                failed=self._worth_another_try(by_part[unit.part], rows),
            )

        for names in self._rounds:
            shards = [
                ShardWork(item.unit, self._images[item.shard].num_rows, partial(self._task, item))
                for item in work
                if item.labeler in names
            ]
            if shards:
                run_shards(self.name, shards, label_shard, commit, self.context)

    def image_changes(self, unit: Unit) -> dict[str, int]:
        """See `Stage.image_changes`."""
        if unit.shard is None:
            return {}  # a report card: its facts say what changed
        return count_image_changes(unit, tables.PSEUDO_LABELS, self._images)

    def orphans(self) -> list[Path]:
        """See `Stage.orphans`."""
        planned = {(planned.labeler, planned.unit.part.name) for planned in self._planned}
        return [
            self._folder(labeler) / part
            for labeler in sorted(self._section.labelers)
            for part in manifest.part_names(self._folder(labeler))
            if (labeler, part) not in planned
        ]

    def garbage(self) -> list[Path]:
        """Parts and stores of labelers that the config has not, labels that no part points to."""
        folders = (self.context.config.manifests / tables.PSEUDO_LABELS.name).glob("labeler=*")
        known = {self._folder(name) for name in self._section.labelers}
        found = [folder for folder in folders if folder not in known]
        found += self._cards.unplanned()
        workspace = self.context.config.run.workspace
        used: dict[Path, set[int]] = {planned.store.path: set() for planned in self._planned}
        for folder in known:
            table = manifest.read(folder, tables.PSEUDO_LABELS, ["store", "shard"])
            for row in table.group_by(["store", "shard"]).aggregate([]).to_pylist():
                used.setdefault(workspace / row["store"], set()).add(row["shard"])
        for labeler in self._stores.glob("*.zarr"):
            groups = {group for group in used if group.parent == labeler}
            if labeler.stem not in self._section.labelers:
                found.append(labeler)
                continue
            found += [path for path in labeler.iterdir() if path.is_dir() and path not in groups]
            for group in groups:
                found += unused_files(group, used[group])
        return found

    def summarize(self) -> None:
        """What each labeler covered, how sure it was, how long it took, and how good it is."""
        rows = []
        for name in self._section.labelers:
            columns = ["status", "coverage", "mean_confidence", "seconds"]
            labels = manifest.read(self._folder(name), tables.PSEUDO_LABELS, columns)
            good = arrays.having(labels, "status", "ok")
            coverage = pc.mean(good["coverage"]).as_py() or 0
            confidence = (pc.sum(good["mean_confidence"]).as_py() or 0) / max(1, good.num_rows)
            seconds = pc.sum(good["seconds"]).as_py()
            speed = f"{good.num_rows / seconds:.1f}" if seconds else "-"
            counts = (str(good.num_rows), str(labels.num_rows - good.num_rows))
            rows.append((name, *counts, f"{coverage:.3f}", f"{confidence:.3f}", speed))
        header = ("labeler", "images", "failed", "coverage", "confidence", "images/s")
        self.context.console.table(f"pseudo-labels in {self._stores}", header, rows)
        self._cards.show()

    @property
    def _stores(self) -> Path:
        return self.context.config.artifacts / "pseudo_labels"

    def _folder(self, labeler: str) -> Path:
        return labels_folder(self.context.config.manifests, labeler)

    @cached_property
    def _planned(self) -> list[_Planned]:
        return [
            planned
            for name, choice in self._section.labelers.items()
            for planned in self._plan_labeler(name, choice)
        ]

    def _plan_labeler(self, name: str, choice: Choice[Labeler]) -> Iterator[_Planned]:
        facts = self._labeler_facts(name, choice)
        # Labels of another config go to a group of their own: a training on these goes on.
        group = self._stores / f"{name}.zarr" / manifest.digest(facts)
        store = LabelStore(group, self._images.shard_size, self._section.size_px)
        folder = self._folder(name)
        columns = ["row", "image_id"]
        if self._needs_label_files(name):
            columns.append("mask_id")
        for shard, digest in self._images.digests(columns).items():
            unit = Unit(
                f"{name} shard {shard}",
                folder / manifest.part_name(shard),
                {**facts, "inputs.images": digest},
                (store.shard_file(shard, "mask"), store.shard_file(shard, "confidence")),
                shard,
            )
            yield _Planned(unit, name, shard, store)

    @cached_property
    def _cards(self) -> ReportCards:
        labels = [(each.labeler, each.shard, each.unit.facts) for each in self._planned]
        return ReportCards(self.context, self._images, labels)

    @cached_property
    def _images(self) -> ShardedTable:
        return read_shards(self.context.config, self._section.roles)

    def _labeler_facts(self, name: str, choice: Choice[Labeler]) -> Facts:
        vocabulary = self.context.config.vocabulary
        prefix = _key(name)
        labeler = choice.create(vocabulary)
        with error_context(prefix):
            weights, asked = labeler.weights_facts(), labeler.vocabulary_facts()
        facts = {
            **self.version_facts,
            **choice.facts(prefix),
            **{f"{prefix}.{key}": value for key, value in weights.items()},
            **asked,
            "pseudolabel.size_px": self._section.size_px,
        }
        if choice.component.needs_label_files:
            images = self._images.table
            schemes = images.filter(pc.is_valid(images["mask_uri"]))["label_scheme"].unique()
            for scheme in schemes.to_pylist():
                facts |= vocabulary.scheme_facts(scheme)
        if choice.component.needs_proposals:
            propose = self.context.config.sections["propose"]
            facts |= ProposeStage(propose, self.context).mask_facts
        for member in self._members[name]:
            facts = {**self._labeler_facts(member, self._section.labelers[member]), **facts}
        return facts

    def _worth_another_try(self, planned: _Planned, rows: Rows) -> int:
        """How many images failed that need not: ingest found all that the labeler needs."""
        failed = {row["row"] for row in rows if row["status"] == "failed"}
        if self._needs_label_files(planned.labeler):
            images = self._images.rows(planned.shard)
            failed -= {image["row"] for image in images if image["mask_uri"] is None}
        return len(failed)

    def _needs_label_files(self, name: str) -> bool:
        """Whether label files are what a labeler's labels come from, if by way of its members."""
        needs = self._section.labelers[name].component.needs_label_files
        return needs or any(self._needs_label_files(member) for member in self._members[name])

    def _check_proposals(self, key: str) -> None:
        """Refuses a labeler whose images would have no masks, or masks of another size."""
        path, propose = self.context.config.path, self.context.config.sections.get("propose")
        if not isinstance(propose, ProposeConfig):
            what = "it needs SAM's masks, and the config has no section `propose`"
            raise ConfigError(what, where=f"{path}: {key}", fix="add `propose: {model: ...}` to it")
        roles = {*self._section.roles} - {*propose.roles, "labeled"}
        if roles:
            what = f"{key} needs SAM's masks of the role {', '.join(sorted(roles))} too"
            raise ConfigError(what, where=f"{path}: propose.roles", fix="add it")
        if propose.size_px != self._section.size_px:
            what = f"{propose.size_px}, where {key} needs masks of the labels' size"
            fix = f"set it to pseudolabel.size_px, {self._section.size_px}"
            raise ConfigError(what, where=f"{path}: propose.size_px", fix=fix)

    def _task(self, planned: _Planned) -> ShardTask:
        from stages.pseudolabel.task import ShardTask

        manifests, workspace = self.context.config.manifests, self.context.config.run.workspace
        members = self._members[planned.labeler]
        return ShardTask(
            shard=planned.shard,
            images=self._images.rows(planned.shard),
            key=_key(planned.labeler),
            labeler=self._section.labelers[planned.labeler],
            vocabulary=self.context.config.vocabulary,
            proposals=proposals_part(manifests, planned.shard),
            members={name: labels_part(manifests, name, planned.shard) for name in members},
            workspace=workspace,
            store=planned.store,
            store_name=storage.relative(planned.store.path, workspace),
            cache=labeler_cache(self.context.config),
            fingerprint=manifest.digest(planned.unit.facts),
            batch_size=self._section.batch_size,
            device=self._section.device,
        )


def _key(labeler: str) -> str:
    """Where a config says how a labeler labels."""
    return f"pseudolabel.labelers.{labeler}"
