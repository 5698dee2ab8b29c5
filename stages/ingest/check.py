"""Whether the data of a config is on the disk, all of it, and where to get what is not."""

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
class Finding:
    """What there is of a source.

    Attributes:
        told: How many images and label files there are, and what is missing, in words.
        missing: Paths at or below which something is missing, as the config spells them.
    """

    told: list[str] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)


def check_data(config: Config, console: Console) -> bool:
    """Tells of each source how much of it is there; reads lists and folders, but no image.

    Returns:
        Whether nothing is missing.

    Raises:
        ConfigError: The config has no section `ingest`.
    """
    section = ingest_section(config)
    split = "" if section.split is None else f", split {section.split}"
    console.line(f"{config.path}: data in {config.data}{split}")
    expected = section.expected.get(section.split or "", {})
    if section.expected and not expected:
        console.line(f"counts are known of the splits {', '.join(section.expected)} alone")
    missing: set[str] = set()
    for name, source in section.sources.items():
        found = look(config, name, source, expected.get(name))
        console.line(f"{name} ({source.role}): {'; '.join(found.told)}")
        missing |= found.missing
    for path, note in section.download.items():
        if any(_on_one_way(path, one) for one in missing):
            console.line(f"get {path}: {note}")
    return not missing


def look(config: Config, name: str, source: SourceConfig, expected: int | None) -> Finding:
    """What there is of one source.

    Args:
        config: The run.
        name: The source's.
        source: Its keys.
        expected: How many images it should have, if that is known.
    """
    found = Finding()
    origin = source.create(config, name)
    for spelled, path in origin.places.items():
        if not path.exists():
            found.told.append(f"missing: {path}")
            found.missing.add(spelled)
    if found.missing:
        return found
    try:
        images = origin.list()
    except MaskmillError as error:
        return Finding([f"missing: {error}"], {*origin.places})
    _count(images, source, found, config.data)
    if expected is None:
        return found
    if (lacking := expected - images.num_rows) > 0:
        found.told.append(f"missing: {lacking:,} of the {expected:,} expected")
        found.missing |= {*origin.places}
    else:
        found.told.append(f"{expected:,} expected" if lacking else "as expected")
    return found


def _count(images: pa.Table, source: SourceConfig, found: Finding, data: Path) -> None:
    """Adds what a listing says: numbers of images and label files, and of those that are absent."""
    masked = images.filter(pc.is_valid(images["mask"]))
    counts = [f"{images.num_rows:,} images"]
    if masked.num_rows or source.role in MASKED:
        counts.append(f"{masked.num_rows:,} label files")
    found.told.append(", ".join(counts))
    read = images.filter(pc.is_null(images["problem"]))
    if refused := images.num_rows - read.num_rows:
        found.told.append(f"{refused:,} must not be read")
    if source.role in MASKED and masked.num_rows < images.num_rows:
        found.told.append(f"missing: {images.num_rows - masked.num_rows:,} have no label file")
        found.missing.add(".")
    for what, path, stamp in (("images", "image", "stamp"), ("label files", "mask", "mask_stamp")):
        paths = read.filter(pc.and_(pc.is_valid(read[path]), pc.is_null(read[stamp])))[path]
        absent = paths.to_pylist()
        if absent:
            found.told.append(f"missing: {len(absent):,} {what}, first {absent[0]}")
            folders = {posixpath.dirname(path) for path in absent}
            places = map(locations.location, folders)
            found.missing |= {storage.relative(place, data) for place in places}


def _on_one_way(first: str, second: str) -> bool:
    """Whether one of two paths is the other, or a folder above it."""
    one, other = PurePosixPath(first), PurePosixPath(second)
    return one.is_relative_to(other) or other.is_relative_to(one)
