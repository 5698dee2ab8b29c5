"""Ingest: lists the sources, reads each new or changed file once, and gives every image a row."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.config_section import Facts, Section
from pipeline.config.vocabulary import CLASS_COLORS
from pipeline.config.vocabulary_doubts import doubts_of_colors
from pipeline.engine.findings import Findings
from pipeline.engine.held_images import GONE, Drop
from pipeline.engine.input_files import InputFiles
from pipeline.engine.stage import Context, ShardKey, Stage, Unit
from pipeline.errors import ConfigError, DataError, StorageError, together
from pipeline.files import locations, storage
from pipeline.records import arrays, manifest, part_file, tables
from pipeline.records.rows import ImageRow
from pipeline.records.sharded_table import ShardedTable
from stages.ingest.changes import image_changes
from stages.ingest.color_facts import with_colors
from stages.ingest.config import IngestConfig, drawn_labels
from stages.ingest.duplicates import (
    COMPARED_COLUMNS,
    SEARCHED_COLUMNS,
    contradictions,
    listed_twice,
    maybe_changed,
    status_changes,
)
from stages.ingest.gone import Vanished, ask, remarks, vanished
from stages.ingest.image_remarks import image_remarks
from stages.ingest.label_drawing import damaged_files, draw_missing, not_drawn, unused_files
from stages.ingest.layout import Layout, assign_rows
from stages.ingest.listing import Listing, check_scheme, list_sources
from stages.ingest.lost_parts import keep_places, rows_of_lost_parts
from stages.ingest.shard_facts import DUPLICATES_MARKED, SHARD_SIZE, ShardFacts

if TYPE_CHECKING:
    from stages.ingest.scan import Entry, ScanResult


class IngestStage(Stage[ShardKey]):
    """Fills the images manifest."""

    name = "ingest"
    version = 2
    table = tables.IMAGES
    Config = IngestConfig

    def __init__(self, section: Section, context: Context) -> None:
        super().__init__(section, context)
        assert isinstance(section, IngestConfig)
        self._section = section
        self.folder = context.config.manifests / tables.IMAGES.name
        self._facts = ShardFacts(section, context.config.vocabulary, self.version_facts)
        self._contents: dict[str, str | None] = {}

    def prepare(self) -> None:
        """Draws label files, and compares new images that may be known ones at another address.

        Raises:
            DataError: Many images are gone, and the user has not said that this is right.
        """
        self.draw()
        if unsure := self._layout.unsure:
            from stages.ingest.scan import content_ids

            what = "images compared with those that are gone"
            with self.context.console.progress("ingest", len(unsure), what) as progress:
                for uri, image_id in content_ids(unsure, self._section.limits):
                    self._contents[uri] = image_id
                    progress.advance()
            del self._layout
        if not self.context.accept_gone:
            ask(self._vanished, self.context.config.path)

    def draw(self) -> None:
        """Draws the label files of annotations that are missing."""
        if self._listing.undrawn:
            draw_missing(self._listing.undrawn, self.context.console)
            # Images that their annotations do not fit are listed with that problem now.
            self._forget_listing()

    def garbage(self) -> list[Path]:
        """See `Stage.garbage`: drawn label files."""
        return unused_files(self.context.config, self.layout.table)

    def damage(self) -> list[str]:
        """See `Stage.damage`: drawn label files."""
        what = "a label file that was drawn from annotations, missing or damaged"
        found = damaged_files(self.context.config, self.layout.table)
        return [f"{address}: {what}" for address in found]

    def repair(self) -> None:
        """See `Stage.repair`: draws label files again.

        Raises:
            DataError: An image cannot be read now.
        """
        for address in damaged_files(self.context.config, self.layout.table):
            storage.remove(locations.location(address))
        self._forget_listing()
        self.draw()
        if self._listing.undrawn:
            where = str(drawn_labels(self.context.config))
            fix = "remove the cause, then verify again"
            raise DataError("images of label files cannot be read", where=where, fix=fix)

    def check(self, findings: Findings, pending: Collection[str]) -> None:
        """See `Stage.check`: shard size, label schemes, and what the sources list."""
        for doubt in doubts_of_colors(self.context.config.vocabulary):
            findings.warn(doubt)
        for name, source in self._section.sources.items():
            check_scheme(self.context.config, name, source, findings)
        with findings.collecting():
            self._check_shard_size()
        if not pending:  # else the images are not drawn yet
            with findings.collecting():
                _ = self.layout

    def plan(self) -> list[Unit[ShardKey]]:
        """Plans a unit a shard; lists every source, opens no image."""
        facts = self._facts.of(self.layout, self._rows)
        return [
            Unit(ShardKey(shard), self._part(shard), own, shard=shard)
            for shard, own in facts.items()
        ]

    def run(self, units: Sequence[Unit[ShardKey]]) -> None:
        """Reads the images of stale shards in order.

        A shard with a bad label file is not committed. What is wrong with label files is told at
        the end, all of it; shards without label files then wait for another run.

        Raises:
            DataError: Label files are bad.
        """
        problems: list[DataError] = []
        total = sum(self.layout[unit.shard].num_rows for unit in units)
        with self.context.console.progress("ingest", total, "images") as progress:
            for unit in units:
                # Until duplicates are marked, one part stays stale, so that an interrupted run is
                # repeated.
                is_marked = unit is not units[0]
                facts = {**unit.facts, DUPLICATES_MARKED: is_marked}
                if problems and not self.layout[unit.shard]["mask"].is_valid().to_numpy().any():
                    continue
                rows, failed, found = self._scan(unit)
                problems += found
                in_colors = any(row["label_scheme"] == CLASS_COLORS for row in rows)
                facts = with_colors(facts, self.context.config.vocabulary, in_colors=in_colors)
                if not found:
                    self._write(unit.part, rows, failed, facts)
                progress.advance(self.layout[unit.shard].num_rows)
            if problems:
                raise together(problems)
            self._mark_duplicates(units[0])

    def image_changes(self, unit: Unit[ShardKey]) -> dict[str, int]:
        """See `Stage.image_changes`."""
        names = ["row", "uri", "stamp", "mask_stamp", "status"]
        exists = unit.part.exists()
        rows = manifest.read_part(unit.part, tables.IMAGES, names).to_pylist() if exists else ()
        return image_changes(rows, self.layout.rows(unit.shard))

    def orphans(self) -> list[Path]:
        """Parts of no shard: all rows ever given lie in the shards of the layout."""
        planned = {part_file.part_name(shard) for shard in self.layout.shards}
        names = manifest.part_names(self.folder)
        return [self.folder / name for name in names if name not in planned]

    def discard(self, path: Path) -> None:
        """See `Stage.discard`: images keep their rows, as far as these can still be read."""
        if not part_file.put_in_place(path):
            keep_places(path, {SHARD_SIZE: self._section.shard_size})

    def remarks(self) -> list[str]:
        """See `Stage.remarks`: what no row shows, and images that are gone; asked after `plan`."""
        gone = remarks(self._vanished, len(self._layout.unsure), self._rows["status"])
        return [*self._listing.remarks, *gone]

    def gone(self) -> list[Drop]:
        """See `Stage.gone`."""
        table = self.layout.table
        absent = ShardedTable(table.filter(pc.invert(table["present"])), self.layout.shard_size)
        rest = ShardedTable(table.filter(table["present"]), self.layout.shard_size)
        known = self._rows
        facts = self._facts.of(rest, known.filter(pc.not_equal(known["status"], arrays.text(GONE))))
        return [
            Drop(
                self._part(shard),
                tables.IMAGES,
                {*absent[shard]["row"].to_pylist()},
                facts.get(shard, {}),
            )
            for shard in absent.shards
        ]

    def check_input_files(self, unit: Unit[ShardKey]) -> InputFiles:
        """See `Stage.check_input_files`: label files that are not those that ingest read."""
        from stages.ingest.scan import check_label_files

        columns = ["mask_uri", "mask_id", "status"]
        rows = manifest.read_part(unit.part, tables.IMAGES, columns)
        return check_label_files(not_drawn(self.context.config, rows))

    def summarize(self) -> None:
        """Prints counts by role and status, and the classes that no labeled image shows."""
        images = manifest.read(self.folder, tables.IMAGES, ["role", "status", "shard", "remark"])
        good = arrays.having(images, "status", "ok")
        roles = {pair["values"]: pair["counts"] for pair in good["role"].value_counts().to_pylist()}
        counts = ", ".join(f"{count} {role}" for role, count in sorted(roles.items()))
        self.context.console.note(f"ingest: {counts}; in {self.folder}")
        told = self._told(images)
        for status in sorted({*told["status"].unique().to_pylist()} - {"ok"}):
            these = arrays.having(told, "status", status)
            if status == "duplicate":
                these = self._without_listed_twice(these)
            if not these.num_rows:
                continue
            first = these.slice(0, 1).to_pylist()[0]
            text = f"first: {first['uri']}: {first['error_message']}"
            again = "; the next run tries again" if status == "failed" else ""
            count = f"{these.num_rows} image{'s'[: these.num_rows != 1]}"
            self.context.console.warn(f"{count} {status}; {text}{again}")
        remarks = image_remarks(arrays.having(told, "status", "ok"))
        for remark in (*remarks, *contradictions(told)):
            self.context.console.warn(remark)
        labeled = arrays.having(good, "role", "labeled")
        names = self.context.config.vocabulary.class_names
        shown = self._class_ids(labeled["shard"].unique().to_pylist())
        absent = [name for class_id, name in enumerate(names) if class_id not in shown]
        if roles.get("labeled") and absent:
            self.context.console.warn(f"no labeled image has pixels of: {', '.join(absent)}")

    def _without_listed_twice(self, duplicates: pa.Table) -> pa.Table:
        """Counts the files that two sources list, which is no fault; returns the others."""
        twice = listed_twice(duplicates)
        if count := int(twice.sum()):
            images = f"{count:,} image{'s are' if count != 1 else ' is'}"
            self.context.console.note(f"ingest: {images} listed by two sources, and used by one")
        return duplicates.filter(arrays.flags(~twice))

    def _told(self, images: pa.Table) -> pa.Table:
        """Those of all images that are not used or have a remark, with what is said of them."""
        is_told = pc.or_(
            pc.not_equal(images["status"], arrays.text("ok")), pc.is_valid(images["remark"])
        )
        if not pc.any(is_told).as_py():  # the addresses of many images take much memory
            return arrays.empty(tables.IMAGES.schema)
        columns = ["status", "uri", "error_message", "source", "remark"]
        return manifest.read(self.folder, tables.IMAGES, columns).filter(is_told)

    def _class_ids(self, shards: Iterable[int]) -> set[int]:
        """The classes that occur in the labels of the good labeled images of shards."""
        columns = ["role", "status", "mask_class_ids"]
        parts = (
            manifest.read_part(self._part(n), tables.IMAGES, columns).to_pylist() for n in shards
        )
        return {
            class_id
            for rows in parts
            for row in rows
            if row["role"] == "labeled" and row["status"] == "ok"
            for class_id in row["mask_class_ids"] or ()
        }

    def _scan(self, unit: Unit[ShardKey]) -> tuple[list[ImageRow], int, list[DataError]]:
        """Reads a shard.

        Returns:
            Its rows, how many of its images may be readable another time, and what is wrong with
            its label files.
        """
        entries = self.layout.rows(unit.shard)
        scanned = self.read(entries, self._known(unit.part, entries))
        assert unit.shard is not None
        rows: list[ImageRow] = [{**result.row, "shard": unit.shard} for result in scanned]
        problems = [result.problem for result in scanned if result.problem is not None]
        return rows, sum(result.is_failed for result in scanned), problems

    def _known(self, part: Path, entries: Sequence[Entry]) -> dict[int, ImageRow]:
        """A shard's rows so far; without a readable part none, unless images of it are gone."""
        try:
            rows: list[ImageRow] = manifest.read_part(part, tables.IMAGES).to_pylist()
        except StorageError:
            if not all(entry["present"] for entry in entries):
                raise
            return {}
        return {row["row"]: row for row in rows}

    def read(self, entries: Sequence[Entry], known: Mapping[int, ImageRow]) -> list[ScanResult]:
        """What is in the files of a shard; see `scan`."""
        from stages.ingest.scan import Reading, scan

        sources = self._section.sources.items()
        ranges = {name: each.value_range for name, each in sources if each.value_range is not None}
        stored = frozenset(name for name, each in sources if each.exif_orientation == "ignore")
        reading = Reading(self.context.config.vocabulary, self._section.limits, ranges, stored)
        return scan(entries, known, reading)

    def _mark_duplicates(self, first: Unit[ShardKey]) -> None:
        """Marks duplicates: rewrites the shards in which a status changes, and `first` last."""
        rows = maybe_changed(manifest.read(self.folder, tables.IMAGES, SEARCHED_COLUMNS))
        changes = {row["row"]: row for row in status_changes(self._compared(rows)).to_pylist()}
        changed = {row // self._section.shard_size for row in changes}
        for shard in [*sorted(changed - {first.shard}), first.shard]:
            assert shard is not None
            part = self._part(shard)
            record = part_file.read_record(part)
            assert record is not None
            before: list[ImageRow] = manifest.read_part(part, tables.IMAGES).to_pylist()
            after: list[ImageRow] = [{**row, **changes.get(row["row"], {})} for row in before]
            self._write(part, after, record.failed, {**record.facts, DUPLICATES_MARKED: True})

    def _compared(self, rows: npt.NDArray[np.int64]) -> pa.Table:
        """These rows of the manifest, read from their parts: there are few, of many images."""
        wanted, found = arrays.integers(rows), []
        for shard in np.unique(rows // self._section.shard_size).tolist():
            part = manifest.read_part(self._part(shard), tables.IMAGES, COMPARED_COLUMNS)
            found.append(part.filter(pc.is_in(part["row"], wanted)))
        schema = pa.schema([tables.IMAGES.schema.field(name) for name in COMPARED_COLUMNS])
        return pa.concat_tables([arrays.empty(schema), *found])

    def _write(self, part: Path, rows: Sequence[ImageRow], failed: int, facts: Facts) -> None:
        table = tables.IMAGES.rows(rows)
        part_file.write_part(part, table, facts, self._plain, failed=failed)

    def _part(self, shard: int) -> Path:
        return self.folder / part_file.part_name(shard)

    @property
    def layout(self) -> ShardedTable:
        """Every image that is or was listed, with its row."""
        return self._layout.table

    @cached_property
    def _layout(self) -> Layout:
        self._check_shard_size()
        read = partial(manifest.read, self.folder, tables.IMAGES)
        size, lost = self._section.shard_size, rows_of_lost_parts(self.context.config.manifests)
        return assign_rows(self._listing.images, read, size, self._contents, lost)

    @property
    def _rows(self) -> pa.Table:
        """The images manifest so far: where its rows are, and what has become of them."""
        columns = ["row", "shard", "source", "status", "label_scheme"]
        return manifest.read(self.folder, tables.IMAGES, columns)

    @property
    def _vanished(self) -> list[Vanished]:
        layout, sources = self.layout.table, [*self._section.sources]
        return vanished(layout, self._rows, sources, self._listing.away)

    @cached_property
    def _listing(self) -> Listing:
        known = manifest.read(self.folder, tables.IMAGES, ["source"])["source"]
        return list_sources(self.context.config, self._section, {*known.unique().to_pylist()})

    def _forget_listing(self) -> None:
        for name in ("_listing", "_layout"):
            self.__dict__.pop(name, None)

    def _check_shard_size(self) -> None:
        part = next(iter(manifest.part_names(self.folder)), None)
        size = self._section.shard_size
        facts = part_file.read_facts(self.folder / part) if part is not None else None
        if facts is not None and facts[SHARD_SIZE] != size:
            what = f"{size}, but this run was created with shards of {facts[SHARD_SIZE]} images"
            where = f"{self.context.config.path}: {SHARD_SIZE}"
            fix = "set it back, or start a new run: --set run=NAME"
            raise ConfigError(what, where=where, fix=fix)
