"""Checks whether all data of a config is on the disk, and says where to get what is missing."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.config import Config
from pipeline.console import Console
from pipeline.errors import MaskmillError
from pipeline.files import locations, storage
from stages.ingest.config import MASKED, SourceConfig, ingest_section


@dataclass
class SourceCheck:
    """Result of checking a source.

    Attributes:
        remarks: The numbers of images and label files, and what is missing, in words.
        missing: Paths at or below which something is missing, as the config spells them.
    """

    remarks: list[str] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)


def check_data(config: Config, console: Console) -> bool:
    """Prints how much of each source is there; reads lists and folders, but no image.

    Returns:
        Whether everything is there.

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
        if any(_is_same_or_inside(path, other) for other in missing):
            console.line(f"get {path}: {note}")
    return not missing


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
