"""The report cards of a run as units: which cards there are, and what they are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.config_section import Facts
from pipeline.engine.stage import Context, Unit
from pipeline.files import storage
from pipeline.records import arrays, part_file, tables
from pipeline.records.redone import PREFIX, Redone, without_shard
from pipeline.records.rows import CardRow
from pipeline.records.sharded_table import ShardedTable, digest_rows
from stages.pseudolabel.label_facts import LabelFacts
from stages.pseudolabel.output import card_part, card_tables, labels_part
from stages.pseudolabel.report_card import report_card_rows

_VERSION = 1
"""Raised when the same labels get another card than before."""


@dataclass(frozen=True)
class CardKey:
    """Key of a unit that is the report card of a labeler."""

    labeler: str

    def __str__(self) -> str:
        return f"{self.labeler} report card"


@dataclass(frozen=True)
class ReportCards:
    """The report cards of a run.

    Attributes:
        context: The run.
        images: All images to be labeled, by shard.
        made_from: What labels are made from.
        labels: The planned facts of each labeler's labels besides the images.
    """

    context: Context
    images: ShardedTable
    made_from: LabelFacts
    labels: Mapping[str, Facts]

    @cached_property
    def units(self) -> list[Unit[Any]]:
        """One unit for each labeler; none if no image is labeled by hand.

        Its facts are digests of the facts of the labels, not of the labels, for it is planned
        before these exist. So a change that concerns both is reported once, with the shards.
        """
        images, vocabulary = self._labeled, self.context.config.vocabulary
        if not self._shards:
            return []
        schemes = images["label_scheme"].unique().to_pylist()
        reading = vocabulary.class_facts() | vocabulary.schemes_facts(schemes)
        facts: Facts = {
            "report_card.version": _VERSION,
            "inputs.labeled images": digest_rows(images.select(["row", "image_id", "mask_id"])),
            "inputs.classes or label scheme": part_file.digest(reading),
        }
        return [
            Unit(
                CardKey(name),
                card_part(self.context.config.manifests, name),
                {
                    **facts,
                    "inputs.labels": part_file.digest([own] * len(self._shards)),
                    **self._redone(name),
                },
                versions=self.made_from.versions(name),
            )
            for name, own in self.labels.items()
        ]

    def facts_read(self, unit: Unit[Any]) -> Facts:
        """The facts of a card by the parts of the labels that it is made from."""
        recorded = [part_file.read_facts(part) or {} for part in self._parts(unit.key.labeler)]
        used = part_file.digest([without_shard(facts) for facts in recorded])
        return {**unit.facts, "inputs.labels": used, **self._redone(unit.key.labeler)}

    def follows(self, unit: Unit[Any]) -> bool:
        """Whether a card was fresh until labels that it is made from were done again on request."""
        recorded, read = part_file.read_facts(unit.part), self.facts_read(unit)
        return recorded not in (None, read) and without_shard(recorded or {}) == without_shard(read)

    def score(self, key: CardKey) -> tuple[list[CardRow], int]:
        """The rows of a card, and the number of labeled images without a label.

        Raises:
            DataError: A label file can no longer be read.
        """
        rows = report_card_rows(self.context.config, key.labeler, self._labeled)
        return rows, self._labeled.num_rows - rows[0]["images"]

    def show(self) -> None:
        """Prints the cards that are fresh, and names those that are not."""
        console = self.context.console
        if not self.units:
            console.line("no report card: no image is labeled by hand")
        is_fresh = {}
        for unit in self.units:  # labels may have been done again since they were planned
            planned = {k: v for k, v in unit.facts.items() if not k.startswith(PREFIX)}
            facts = planned | self._redone(unit.key.labeler)
            is_fresh[unit.key.labeler] = part_file.read_facts(unit.part) == facts
        for table in card_tables(
            self.context.config, [name for name in is_fresh if is_fresh[name]]
        ):
            console.table(table.title, table.header, table.rows)
        for name in is_fresh:
            if not is_fresh[name]:
                console.line(f"no report card of {name} yet: it comes when all shards are done")

    def unplanned(self) -> list[Path]:
        """Cards that exist but are not planned."""
        planned = {unit.part for unit in self.units}
        folder = self.context.config.manifests / tables.REPORT_CARD.name
        return [part for part in storage.glob(folder, "part-*.parquet") if part not in planned]

    def _parts(self, labeler: str) -> list[Path]:
        """The parts of the labels that a card is made from."""
        manifests = self.context.config.manifests
        return [labels_part(manifests, labeler, shard) for shard in self._shards]

    def _redone(self, labeler: str) -> Facts:
        counts = Redone(self.context.config.manifests)
        if counts.is_empty:
            return {}
        count = sum(self.made_from.count_redone(labeler, shard, counts) for shard in self._shards)
        return {f"{PREFIX}labels of {labeler}": count} if count else {}

    @cached_property
    def _shards(self) -> list[int]:
        """The shards that have labeled images."""
        size = self.images.shard_size
        return sorted({row // size for row in self._labeled["row"].to_pylist()})

    @cached_property
    def _labeled(self) -> pa.Table:
        images = self.images.table
        is_labeled = pc.equal(images["role"], arrays.text("labeled"))
        return images.filter(pc.and_(is_labeled, pc.is_valid(images["mask_uri"])))
