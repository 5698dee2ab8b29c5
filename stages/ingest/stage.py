"""Ingest: lists the sources, reads each new or changed file once, and gives every image a place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline import manifest
from pipeline.components import Choice, chosen_from
from pipeline.errors import ConfigError, DataError
from pipeline.images import Limits
from pipeline.section import Facts, Name, Section
from pipeline.stage import Context, Stage, Unit
from pipeline.staleness import count_changes
from stages.ingest.duplicates import PRECEDENCE, settle
from stages.ingest.layout import Entry, as_text, lay_out, stamp
from stages.ingest.scan import scan
from stages.ingest.sources.base import Source

Rows = list[dict[str, Any]]
Role = Literal["labeled", "unlabeled", "ood", "val", "test"]
_SHARD_SIZE = "ingest.shard_size"


class SourceConfig(Section):
    """One source of images."""

    role: Role
    """What its images are for."""
    source: Annotated[Choice[Source], *chosen_from("stages.ingest.sources", Source)]
    """Where they come from: {name: folder, images: ..., masks: ...}."""
    label_scheme: str | None = None
    """The vocabulary's scheme that reads the label files; default: pixel values are class ids."""


class IngestConfig(Section):
    """The section `ingest`."""

    sources: dict[Name, SourceConfig] = Field(min_length=1)
    """Sources by name."""
    shard_size: Annotated[int, Field(ge=1, le=4096)] = 64
    """Images a shard; fixed once a run has images."""
    limits: Limits = Limits()
    """What an image may cost; one that costs more is rejected."""


class IngestStage(Stage):
    """Fills the images manifest."""

    name = "ingest"
    version = 2
    Config = IngestConfig
    needs = ("sandbox",)

    def __init__(self, section: Section, context: Context) -> None:
        super().__init__(section, context)
        assert isinstance(section, IngestConfig)
        self._section = section
        self.folder = context.config.manifests / manifest.IMAGES.name

    def plan(self) -> list[Unit]:
        """A unit a shard; lists every source, opens no image."""
        archives: dict[str, str | None] = {}
        return [self._unit(shard, entries, archives) for shard, entries in self._shards.items()]

    def run(self, units: Sequence[Unit]) -> None:
        """Reads the images of stale shards, in order; stops at a shard with a wrong label file."""
        shards = {self._part(shard): shard for shard in self._shards}
        total = sum(len(self._shards[shards[unit.part]]) for unit in units)
        with self.context.console.progress("ingest", total, "images") as progress:
            for unit in units:
                try:
                    rows = self._scan(shards[unit.part])
                except DataError:
                    self._settle([])  # the shards before it may stay when this one is taken back
                    raise
                if unit is units[-1]:  # before its part is there: a killed run settles again
                    self._settle(rows)
                self._write(unit.part, rows, unit.facts)
                progress.advance(len(rows))

    def image_changes(self, unit: Unit) -> dict[str, int]:
        """See `Stage.image_changes`."""
        assert unit.shard is not None
        before = {}
        if unit.part.exists():
            rows = manifest.read_part(unit.part, manifest.IMAGES).to_pylist()
            before = {
                row["row"]: (row["uri"], row["stamp"], row["mask_stamp"])
                for row in rows
                if row["status"] != "gone"
            }
        listed = (entry for entry in self._shards[unit.shard] if entry.gone is None)
        now = {e.row: (as_text(e.uri), stamp(e.uri), stamp(e.mask_uri)) for e in listed}
        return count_changes(before, now)

    def summarize(self) -> None:
        """Counts by role and status, and what a labeled set cannot teach."""
        rows = manifest.read(self.folder, manifest.IMAGES).to_pylist()
        roles: dict[str, int] = {}
        bad = []
        for row in rows:
            if row["status"] == "ok":
                roles[row["role"]] = roles.get(row["role"], 0) + 1
            else:
                bad.append(row)
        counts = ", ".join(f"{count} {role}" for role, count in sorted(roles.items()))
        self.context.console.note(f"ingest: {counts}; in {self.folder}")
        for remark in self._listing[1]:
            self.context.console.note(f"ingest: {remark}")
        for status in sorted({row["status"] for row in bad}):
            these = [row for row in bad if row["status"] == status]
            first = f"first: {these[0]['uri']}: {these[0]['error_message']}"
            self.context.console.warn(f"{len(these)} images {status}; {first}")
        labeled = {
            class_id
            for row in rows
            if row["role"] == "labeled" and row["status"] == "ok"
            for class_id in row["mask_class_ids"] or ()
        }
        names = self.context.config.vocabulary.class_names
        absent = [name for class_id, name in enumerate(names) if class_id not in labeled]
        if roles.get("labeled") and absent:
            self.context.console.warn(f"no labeled pixel of: {', '.join(absent)}")

    def _scan(self, shard: int) -> Rows:
        rows, problems = scan(
            self._shards[shard], self.context.config.vocabulary, self._section.limits
        )
        if problems:
            more = f" (and {len(problems) - 1} more in this shard)" if problems[1:] else ""
            first = problems[0]
            raise DataError(f"{first.what}{more}", where=first.where, fix=first.fix)
        return [{**row, "shard": shard} for row in rows]

    def _settle(self, rows: Rows) -> None:
        """Settles which of equal images counts, and rewrites other shards where that changes."""
        known: Rows = manifest.read(self.folder, manifest.IMAGES).to_pylist()
        own = {row["shard"] for row in rows}
        others = [row for row in known if row["shard"] not in own]
        changed = {row["shard"] for row in settle([*others, *rows])}
        for shard in sorted(changed - own):
            part = self._part(shard)
            facts = manifest.read_facts(part)
            assert facts is not None
            self._write(part, [row for row in others if row["shard"] == shard], facts)

    def _write(self, part: Path, rows: Rows, facts: Facts) -> None:
        plain = self._section.model_dump(mode="json")
        manifest.write_part(part, manifest.IMAGES.rows(rows), facts, plain)

    def _unit(self, shard: int, entries: Sequence[Entry], archives: dict[str, str | None]) -> Unit:
        listed = [entry for entry in entries if entry.gone is None]
        facts: Facts = {**self.version_facts, _SHARD_SIZE: self._section.shard_size}
        facts |= self._section.limits.facts("ingest.limits")
        for name in sorted({entry.source for entry in listed}):
            facts |= self._section.sources[name].facts(f"ingest.sources.{name}")
        for scheme in {entry.scheme for entry in listed if entry.mask_uri is not None}:
            facts |= self.context.config.vocabulary.scheme_facts(scheme)
        facts["inputs.images"] = manifest.digest([_inputs(e, archives) for e in entries])
        return Unit(f"shard {shard}", self._part(shard), facts, shard=shard)

    def _part(self, shard: int) -> Path:
        return self.folder / f"part-{shard:05d}.parquet"

    @cached_property
    def _shards(self) -> dict[int, list[Entry]]:
        entries, _ = self._listing
        self._check_shard_size()
        known = manifest.read(self.folder, manifest.IMAGES)
        return lay_out(entries, known, self._section.shard_size)

    @cached_property
    def _listing(self) -> tuple[list[Entry], list[str]]:
        """What the sources list, and what they remark on it."""
        entries: list[Entry] = []
        remarks: list[str] = []
        # What is kept out of training comes first: of equal images the first one counts.
        sources = self._section.sources.items()
        for name, source in sorted(sources, key=lambda item: PRECEDENCE.index(item[1].role)):
            listed, found = self._listed(name, source)
            entries.extend(listed)
            remarks.extend(found)
        return entries, remarks

    def _check_shard_size(self) -> None:
        part = min(self.folder.glob("part-*.parquet"), default=None)
        size = self._section.shard_size
        facts = manifest.read_facts(part) if part is not None else None
        if facts is not None and facts[_SHARD_SIZE] != size:
            what = f"{size}, but the images of this run were laid out with {facts[_SHARD_SIZE]}"
            where = f"{self.context.config.path}: {_SHARD_SIZE}"
            fix = "set it back, or start a new run: --set run=NAME"
            raise ConfigError(what, where=where, fix=fix)

    def _listed(self, name: str, source: SourceConfig) -> tuple[list[Entry], list[str]]:
        config = self.context.config
        key = f"{config.path}: ingest.sources.{name}"
        schemes = config.vocabulary.label_schemes
        if source.label_scheme is not None and source.label_scheme not in schemes:
            known = ", ".join(schemes) or "none; leave the key out"
            what = f"vocabulary {config.vocabulary.name!r} has no scheme {source.label_scheme!r}"
            raise ConfigError(what, where=f"{key}.label_scheme", fix=f"it has: {known}")
        choice = source.source
        origin = choice.create(
            data=config.data,
            beside=config.path.parent,
            cache=config.artifacts / "tar_indexes",
            where=f"{key}.source",
        )
        files = origin.list()
        without = [f.image for f in files if f.mask is None]
        if source.role in ("labeled", "val", "test") and without:
            what = f"images of role {source.role} need label files"
            fix = "name their folder, `masks: ...`, or in a list a column `mask_uri`"
            if len(without) < len(files):
                what = f"{what}, {len(without)} of {len(files)} have none, first: {without[0]}"
                fix = "add its label file to `masks`, or leave the image out"
            raise DataError(what, where=f"{key}.source", fix=fix)
        entries = [
            Entry(
                uri=f.image,
                mask_uri=f.mask,
                caption=f.caption,
                url=f.url,
                problem=f.problem,
                source=name,
                role=source.role,
                scheme=source.label_scheme,
            )
            for f in files
        ]
        return entries, [f"{name}: {remark}" for remark in origin.remarks]


def _inputs(entry: Entry, archives: dict[str, str | None]) -> list[Any]:
    """What a row is made from, beside the config; few entries have all of it."""
    optional = (entry.mask_uri, stamp(entry.mask_uri), entry.caption, entry.url, entry.problem)
    present = entry.gone is None
    return [entry.uri, stamp(entry.uri, archives), present, *(optional if any(optional) else ())]
