"""Checks whether all data of a config is on the disk, and says where to get what is missing."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.config import Config
from pipeline.console import Console
from pipeline.engine.findings import Findings
from pipeline.engine.stage import Context
from pipeline.errors import DataError, MaskmillError
from pipeline.files import config_paths, locations, storage
from pipeline.records import manifest, part_file, tables
from pipeline.records.rows import ImageRow
from stages.ingest.config import MASKED, SourceConfig, ingest_section
from stages.ingest.output import label_file, none_usable
from stages.ingest.stage import IngestStage
from stages.labels.supervision import Supervision


@dataclass
class SourceCheck:
    """Result of checking a source.

    Attributes:
        remarks: The numbers of images and label files, and what is missing, in words.
        missing: Paths at or below which something is missing, as the config spells them.
    """

    remarks: list[str] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)


def check_data(config: Config, console: Console, needed: Collection[str]) -> bool:
    """Prints how much of each source is there, and all that `maskmill run` would refuse of it.

    Reads lists, folders, and the images that have label files, but not those that were read before.

    Args:
        config: The run.
        console: Prints.
        needed: The roles without whose label files a run stops; without others it scores nothing.

    Returns:
        Whether everything is there, and can be used.

    Raises:
        ConfigError: The config has no section `ingest`.
    """
    section = ingest_section(config)
    split = "" if section.split is None else f", split {section.split}"
    console.line(f"{config.path}: data in {config.data}{split}")
    expected = section.expected.get(section.split or "", {})
    if section.expected and not expected:
        console.line(f"`expected` has counts only of the splits {', '.join(section.expected)}")
    missing: set[str] = set()
    for name, source in section.sources.items():
        found = check_source(config, name, source, expected.get(name))
        console.line(f"{name} ({source.role}): {'; '.join(found.remarks)}")
        missing |= found.missing
    for path, note in section.download.items():
        spellings = (path, str(config_paths.below(config.path.parent, path)))
        if any(_is_same_or_inside(each, other) for each in spellings for other in missing):
            console.line(f"get {path}: {note}")
    findings = refused(config, console, needed)
    for warning in findings.warnings:
        console.line(f"warning: {warning}")
    for fault in findings.faults:
        console.line(f"`maskmill run` would refuse: {fault}")
    return not missing and not findings.faults


def refused(config: Config, console: Console, needed: Collection[str]) -> Findings:
    """Everything that `maskmill run` would refuse of the sources and their label files."""
    findings = Findings()
    stage = IngestStage(ingest_section(config), Context(config, console))
    stage.check(findings, ())
    if findings.faults:
        return findings
    stage.draw()
    rows: dict[str, list[ImageRow]] = {}
    for row, problem in _examined(stage):
        rows.setdefault(row["role"], []).append(row)
        if problem is not None:
            findings.add(problem)
    for role, own in ((role, rows[role]) for role in MASKED if role in rows):
        good = [label_file(row) for row in own if row["status"] == "ok" and row.get("mask_id")]
        if all(row["status"] != "ok" for row in own):
            fault = none_usable(config, role, own)
            if role in needed:
                findings.add(fault)
            else:
                findings.warn(f"nothing is scored on {role}: {fault}")
        _judge(config, Supervision(role, tuple(good), config.vocabulary), needed, findings)
    return findings


def _examined(stage: IngestStage) -> Iterator[tuple[ImageRow, DataError | None]]:
    """The rows of images with label files, as `run` would read them, and what is wrong with these.

    What was read before is not read again; nothing is written.
    """
    for unit in stage.plan():
        rows = stage.layout.rows(unit.shard)
        entries = [entry for entry in rows if entry["present"] and entry["mask"]]
        if entries and part_file.read_facts(unit.part) == unit.facts:
            known: list[ImageRow] = manifest.read_part(unit.part, tables.IMAGES).to_pylist()
            masked = (row for row in known if row["mask_uri"] and row["status"] != "gone")
            yield from ((row, None) for row in masked)
        elif entries:
            yield from ((one.row, one.problem) for one in stage.read(entries, {}))


def _judge(config: Config, found: Supervision, needed: Collection[str], findings: Findings) -> None:
    """Adds what is wrong with label files that teach or score nothing."""
    where = f"{config.path}: {found.sources}"
    silence, monotony = found.silence(), found.monotony()
    if found.role in needed and silence is not None:
        findings.add(DataError(silence.what, where=where, fix=silence.fix))
    elif found.role == "labeled" and monotony is not None and "pseudolabel" not in config.sections:
        findings.add(DataError(monotony.what, where=where, fix=monotony.fix))
    elif (doubt := silence or monotony) is not None:
        findings.warn(f"{where}: {doubt}")


def check_source(
    config: Config, name: str, source: SourceConfig, expected: int | None
) -> SourceCheck:
    """Counts the files of one source.

    Args:
        config: The run.
        name: Name of the source.
        source: Its keys.
        expected: The number of images it should have, if known.
    """
    found = SourceCheck()
    origin = source.create(config, name)
    for spelled, path in origin.paths.items():
        if not path.exists():
            found.remarks.append(f"missing: {path}")
            found.missing.add(spelled)
    if found.missing:
        return found
    try:
        images = origin.list()
    except MaskmillError as error:
        return SourceCheck([f"missing: {error}"], {*origin.paths})
    _count_files(images, source, found, config.data)
    found.remarks.extend(origin.remarks)
    if expected is None:
        return found
    if (lacking := expected - images.num_rows) > 0:
        found.remarks.append(f"missing: {lacking:,} of {expected:,} expected images")
        found.missing |= {*origin.paths}
    else:
        found.remarks.append(f"{expected:,} expected" if lacking else "as expected")
    return found


def _count_files(images: pa.Table, source: SourceConfig, found: SourceCheck, data: Path) -> None:
    """Adds the numbers of images and label files in a listing, and of absent ones."""
    masked = images.filter(pc.is_valid(images["mask"]))
    counts = [f"{images.num_rows:,} images"]
    if masked.num_rows or source.role in MASKED:
        counts.append(f"{masked.num_rows:,} label files")
    found.remarks.append(", ".join(counts))
    allowed = images.filter(pc.is_null(images["problem"]))
    if refused := images.num_rows - allowed.num_rows:
        found.remarks.append(f"{refused:,} cannot be used")
    if source.role in MASKED and (without := images.num_rows - masked.num_rows):
        found.remarks.append(f"missing: {without:,} images have no label file")
        found.missing.add(".")
    for what, path, stamp in (("images", "image", "stamp"), ("label files", "mask", "mask_stamp")):
        has_no_file = pc.and_(pc.is_valid(allowed[path]), pc.is_null(allowed[stamp]))
        absent = allowed.filter(has_no_file)[path].to_pylist()
        if absent:
            found.remarks.append(f"missing: {len(absent):,} {what}, first {absent[0]}")
            folders = {posixpath.dirname(file) for file in absent}
            found.missing |= {storage.relative(locations.location(one), data) for one in folders}


def _is_same_or_inside(first: str, second: str) -> bool:
    """Whether two paths are the same, or one of them is a folder above the other."""
    one, other = PurePosixPath(first), PurePosixPath(second)
    return one.is_relative_to(other) or other.is_relative_to(one)
