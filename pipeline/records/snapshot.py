"""A cache of what one command has read of manifests while nothing writes to them.

Planning several stages, or a stage with many trainings, asks for the same listings and columns
again and again; inside `Snapshot.active` each is read once. A snapshot also shows kept parts (see
`kept_parts.py`) in their places before they are moved there.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from pipeline.files import file_stamps
from pipeline.records.hidden_files import index_file
from pipeline.records.part_index import PartIndex, read_index

T = TypeVar("T")


@dataclass(frozen=True)
class Listing:
    """The parts of a manifest folder.

    Attributes:
        stamps: A stamp of each part by file name, in order.
        files: The file that holds each part.
        index: The folder's index.
        indexed: Names of the parts that the index holds as they are.
    """

    stamps: dict[str, str]
    files: dict[str, Path]
    index: PartIndex
    indexed: frozenset[str]


@dataclass
class Snapshot:
    """Listings and columns by folder, kept parts that stand in for others, and results."""

    listings: dict[Path, Listing] = field(default_factory=dict)
    columns: dict[Path, dict[str, pa.ChunkedArray]] = field(default_factory=dict)
    names: dict[Path, frozenset[str]] = field(default_factory=dict)
    stand_ins: dict[Path, Path] = field(default_factory=dict)
    results: dict[Hashable, Any] = field(default_factory=dict)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Uses this snapshot for all reads of the block, which must not write to manifests."""
        token = _active.set(self)
        try:
            yield
        finally:
            _active.reset(token)

    def show(self, parts: dict[Path, Path]) -> None:
        """Shows other files in the places of parts."""
        self.stand_ins |= parts
        for folder in {place.parent for place in parts}:
            self.listings.pop(folder, None)
            self.columns.pop(folder, None)


_active: ContextVar[Snapshot | None] = ContextVar("snapshot", default=None)


def active() -> Snapshot | None:
    """The snapshot in use, if any."""
    return _active.get()


def once(key: Hashable, make: Callable[[], T]) -> T:
    """The result of a function that reads manifests; it is called once while they do not change."""
    snapshot = _active.get()
    if snapshot is None:
        return make()
    if key not in snapshot.results:
        snapshot.results[key] = make()
    result: T = snapshot.results[key]
    return result


def file_of(part: Path) -> Path:
    """The file that holds a part."""
    snapshot = _active.get()
    return part if snapshot is None else snapshot.stand_ins.get(part, part)


def listing(folder: Path) -> Listing:
    """Lists the parts of a manifest folder; no parts if the folder does not exist."""
    snapshot = _active.get()
    if snapshot is None:
        return _list(folder, {})
    if folder not in snapshot.listings:
        own = {part: file for part, file in snapshot.stand_ins.items() if part.parent == folder}
        snapshot.listings[folder] = _list(folder, own)
    return snapshot.listings[folder]


def names_in(folder: Path) -> frozenset[str]:
    """Names of the files in a folder; empty if it does not exist."""
    snapshot = _active.get()
    if snapshot is None:
        return frozenset(file_stamps.stamps_in(folder))
    if folder not in snapshot.names:
        snapshot.names[folder] = frozenset(file_stamps.stamps_in(folder))
    return snapshot.names[folder]


def _list(folder: Path, stand_ins: dict[Path, Path]) -> Listing:
    found = file_stamps.stamps_in(folder)
    stamps = {name: stamp for name, stamp in found.items() if fnmatchcase(name, "part-*.parquet")}
    files = {name: folder / name for name in stamps}
    for part, file in stand_ins.items():
        stamps[part.name], files[part.name] = file.name, file  # the name holds a fingerprint
    stamps = {name: stamps[name] for name in sorted(stamps)}
    place = index_file(folder)
    index = read_index(folder, file_stamps.stamps_in(place.parent).get(place.name))
    same = (name for name, part in index.parts.items() if stamps.get(name) == part.stamp)
    return Listing(stamps, files, index, frozenset(same))
