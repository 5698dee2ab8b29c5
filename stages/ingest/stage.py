"""Ingest: lists the sources, reads each new or changed file once, and gives every image a row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property, partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.config_section import Facts, Section
from pipeline.config.vocabulary import CLASS_COLORS
from pipeline.engine.held_images import GONE, Drop
from pipeline.engine.stage import Context, ShardKey, Stage, Unit
from pipeline.errors import ConfigError, DataError
from pipeline.records import arrays, manifest, part_file, tables
from pipeline.records.rows import ImageRow
from pipeline.records.sharded_table import ShardedTable
from stages.ingest.changes import image_changes
from stages.ingest.color_facts import with_colors
from stages.ingest.config import MASKED, IngestConfig, SourceConfig
from stages.ingest.duplicates import COMPARED_COLUMNS, PRECEDENCE, status_changes
from stages.ingest.gone import Vanished, ask, is_away, remarks, vanished
from stages.ingest.image_remarks import image_remarks
from stages.ingest.layout import Layout, assign_rows
from stages.ingest.shard_facts import DUPLICATES_MARKED, SHARD_SIZE, ShardFacts
from stages.ingest.sources.base import LISTING


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
        self._away: dict[str, Path] = {}

    def prepare(self) -> None:
        """Compares the bytes of new images that may be known ones at another address."""
        if unsure := self._layout.unsure:
            from stages.ingest.scan import content_ids

            what = "images compared with those that are gone"
            with self.context.console.progress("ingest", len(unsure), what) as progress:
                for uri, image_id in content_ids(unsure, self._section.limits):
                    self._contents[uri] = image_id
                    progress.advance()
            del self._layout

    def plan(self) -> list[Unit[ShardKey]]:
        """Plans a unit a shard; lists every source, opens no image."""
        facts = self._facts.of(self.layout, self._rows)
        return [
            Unit(ShardKey(shard), self._part(shard), own, shard=shard)
            for shard, own in facts.items()
        ]

    def run(self, units: Sequence[Unit[ShardKey]]) -> None:
        """Reads the images of stale shards in order; stops at a shard with a bad label file.

        Raises:
            DataError: A label file is bad, or many images are gone and the user has not said that
                this is right.
        """
        if not self.context.accept_gone:
            ask(self._vanished, self.context.config.path)
        total = sum(self.layout[unit.shard].num_rows for unit in units)
        with self.context.console.progress("ingest", total, "images") as progress:
            for unit in units:
                # Until duplicates are marked, one part stays stale, so that an interrupted run is
                # repeated.
                is_marked = unit is not units[0]
                rows, failed = self._scan(unit)
                facts = {**unit.facts, DUPLICATES_MARKED: is_marked}
                in_colors = any(row["label_scheme"] == CLASS_COLORS for row in rows)
                facts = with_colors(facts, self.context.config.vocabulary, in_colors=in_colors)
                self._write(unit.part, rows, failed, facts)
                progress.advance(self.layout[unit.shard].num_rows)
            self._mark_duplicates(units[0])

    def image_changes(self, unit: Unit[ShardKey]) -> dict[str, int]:
        """See `Stage.image_changes`."""
        names = ["row", "uri", "stamp", "mask_stamp", "status"]
        exists = unit.part.exists()
        rows = manifest.read_part(unit.part, tables.IMAGES, names).to_pylist() if exists else ()
        return image_changes(rows, self.layout.rows(unit.shard))

    def remarks(self) -> list[str]:
        """See `Stage.remarks`: what no row shows, and images that are gone; asked after `plan`."""
        gone = remarks(self._vanished, len(self._layout.unsure), self._rows["status"])
        return [*self._listing[1], *gone]

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

    def altered_files(self, unit: Unit[ShardKey]) -> list[str]:
        """See `Stage.altered_files`: label files that are not those that ingest read."""
        from stages.ingest.scan import altered_label_files

        columns = ["mask_uri", "mask_id", "status"]
        return altered_label_files(manifest.read_part(unit.part, tables.IMAGES, columns))

    def summarize(self) -> None:
        """Prints counts by role and status, and the classes that no labeled image shows."""
        columns = ["role", "status", "uri", "error_message", "shard", "source", "remark"]
        images = manifest.read(self.folder, tables.IMAGES, columns)
        good = arrays.having(images, "status", "ok")
        roles = {pair["values"]: pair["counts"] for pair in good["role"].value_counts().to_pylist()}
        counts = ", ".join(f"{count} {role}" for role, count in sorted(roles.items()))
        self.context.console.note(f"ingest: {counts}; in {self.folder}")
        for status in sorted({*images["status"].unique().to_pylist()} - {"ok"}):
            these = arrays.having(images, "status", status)
            first = these.slice(0, 1).to_pylist()[0]
            text = f"first: {first['uri']}: {first['error_message']}"
            again = "; the next run tries again" if status == "failed" else ""
            self.context.console.warn(f"{these.num_rows} images {status}; {text}{again}")
        for remark in image_remarks(good):
            self.context.console.warn(remark)
        labeled = arrays.having(good, "role", "labeled")
        names = self.context.config.vocabulary.class_names
        shown = self._class_ids(labeled["shard"].unique().to_pylist())
        absent = [name for class_id, name in enumerate(names) if class_id not in shown]
        if roles.get("labeled") and absent:
            self.context.console.warn(f"no labeled image has pixels of: {', '.join(absent)}")

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

    def _scan(self, unit: Unit[ShardKey]) -> tuple[list[ImageRow], int]:
        """Reads a shard.

        Returns:
            Its rows, and how many of its images may be readable another time.
        """
        from stages.ingest.scan import Reading, scan

        entries = self.layout.rows(unit.shard)
        gone: dict[int, ImageRow] = {}
        if not all(entry["present"] for entry in entries):
            known: list[ImageRow] = manifest.read_part(unit.part, tables.IMAGES).to_pylist()
            gone = {row["row"]: row for row in known}
        sources = self._section.sources.items()
        ranges = {name: each.value_range for name, each in sources if each.value_range is not None}
        reading = Reading(self.context.config.vocabulary, self._section.limits, ranges)
        scanned = scan(entries, gone, reading)
        if problems := [result.problem for result in scanned if result.problem is not None]:
            more = f" (and {len(problems) - 1} more in this shard)" if problems[1:] else ""
            first = problems[0]
            raise DataError(f"{first.what}{more}", where=first.where, fix=first.fix)
        assert unit.shard is not None
        rows: list[ImageRow] = [{**result.row, "shard": unit.shard} for result in scanned]
        return rows, sum(result.is_failed for result in scanned)

    def _mark_duplicates(self, first: Unit[ShardKey]) -> None:
        """Marks duplicates: rewrites the shards in which a status changes, and `first` last."""
        known = manifest.read(self.folder, tables.IMAGES, COMPARED_COLUMNS)
        changes = {row["row"]: row for row in status_changes(known).to_pylist()}
        changed = {row // self._section.shard_size for row in changes}
        for shard in [*sorted(changed - {first.shard}), first.shard]:
            assert shard is not None
            part = self._part(shard)
            record = part_file.read_record(part)
            assert record is not None
            before: list[ImageRow] = manifest.read_part(part, tables.IMAGES).to_pylist()
            rows: list[ImageRow] = [{**row, **changes.get(row["row"], {})} for row in before]
            self._write(part, rows, record.failed, {**record.facts, DUPLICATES_MARKED: True})

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
        listed, _ = self._listing
        self._check_shard_size()
        read = partial(manifest.read, self.folder, tables.IMAGES)
        return assign_rows(listed, read, self._section.shard_size, self._contents)

    @property
    def _rows(self) -> pa.Table:
        """The images manifest so far: where its rows are, and what has become of them."""
        columns = ["row", "shard", "source", "status", "label_scheme"]
        return manifest.read(self.folder, tables.IMAGES, columns)

    @property
    def _vanished(self) -> list[Vanished]:
        layout, sources = self.layout.table, [*self._section.sources]
        return vanished(layout, self._rows, sources, self._away)

    @cached_property
    def _listing(self) -> tuple[pa.Table, list[str]]:
        """The images of all sources, and the remarks of the sources."""
        listed: list[pa.Table] = []
        remarks: list[str] = []
        # Test and val images come first: of equal images only the first is used.
        sources = self._section.sources.items()
        for name, source in sorted(sources, key=lambda item: PRECEDENCE.index(item[1].role)):
            images, found = self._listed(name, source)
            columns = {"source": name, "role": source.role, "scheme": source.label_scheme}
            for key, value in columns.items():
                column = pa.repeat(arrays.text(value), images.num_rows)
                images = images.append_column(key, column)
            listed.append(images)
            remarks.extend(found)
        return pa.concat_tables(listed), remarks

    @cached_property
    def _known_sources(self) -> set[str]:
        sources = manifest.read(self.folder, tables.IMAGES, ["source"])["source"]
        return {*sources.unique().to_pylist()}

    def _check_shard_size(self) -> None:
        part = next(iter(manifest.part_names(self.folder)), None)
        size = self._section.shard_size
        facts = part_file.read_facts(self.folder / part) if part is not None else None
        if facts is not None and facts[SHARD_SIZE] != size:
            what = f"{size}, but this run was created with shards of {facts[SHARD_SIZE]} images"
            where = f"{self.context.config.path}: {SHARD_SIZE}"
            fix = "set it back, or start a new run: --set run=NAME"
            raise ConfigError(what, where=where, fix=fix)

    def _listed(self, name: str, source: SourceConfig) -> tuple[pa.Table, list[str]]:
        config = self.context.config
        key = f"{config.path}: ingest.sources.{name}"
        schemes = config.vocabulary.label_schemes
        if source.label_scheme not in (None, CLASS_COLORS, *schemes):
            known = ", ".join(schemes) or "none; leave the key out"
            what = f"vocabulary {config.vocabulary.name!r} has no scheme {source.label_scheme!r}"
            raise ConfigError(what, where=f"{key}.label_scheme", fix=f"it has: {known}")
        origin = source.create(config, name)
        folder = next(iter(origin.paths.values()))
        if name in self._known_sources and is_away(folder):
            self._away[name] = folder  # all its images are gone, perhaps for a moment
            return arrays.empty(LISTING), []
        images = origin.list()
        lacking = images["mask"].null_count
        if source.role in MASKED and lacking:
            what = f"images of role {source.role} need label files"
            fix = "name their folder with `masks: ...`, or add a column `mask_uri` to the list"
            if lacking < images.num_rows:
                first = images["image"].filter(pc.is_null(images["mask"]))[0]
                what = f"{what}, but {lacking} of {images.num_rows} have none, first: {first}"
                fix = "add its label file to `masks`, or name the other images in `ids: FILE`"
            raise DataError(what, where=f"{key}.source", fix=fix)
        return images, [f"{name}: {remark}" for remark in origin.remarks]
