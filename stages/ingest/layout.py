"""Which row every image has: rows never move, new images go to new shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline import storage, tar


@dataclass(slots=True)
class Entry:
    """A file that a source lists, or listed once.

    Attributes:
        uri: Address of the image.
        mask_uri: Address of its label file, if any.
        source: Name of its source.
        role: What it is for.
        scheme: The vocabulary's scheme of the label file.
        caption: What its source says of it.
        url: Where its source got it.
        problem: Why its source does not let it be read, if so.
        row: Its place; -1 before it has one.
        gone: Its manifest row, where the source no longer lists it.
    """

    uri: str
    mask_uri: str | None
    source: str
    role: str
    scheme: str | None
    caption: str | None = None
    url: str | None = None
    problem: str | None = None
    row: int = -1
    gone: dict[str, Any] | None = None


def lay_out(
    listed: Sequence[Entry], manifest_rows: pa.Table, shard_size: int
) -> dict[int, list[Entry]]:
    """Gives every listed image a row, and keeps the rows of those no longer listed.

    Args:
        listed: What the sources list now, in order; their `row` is set in place.
        manifest_rows: The images manifest so far.
        shard_size: Images a shard.

    Returns:
        The entries of each shard, in the order of rows.
    """
    columns = manifest_rows.select(["source", "uri", "row", "shard"]).to_pydict()
    places = zip(columns["source"], map(tar.place, columns["uri"]), strict=True)
    unseen = {place: index for index, place in enumerate(places)}
    next_row = (1 + max(columns["shard"], default=-1)) * shard_size
    entries = list(listed)
    for entry in entries:
        if (index := unseen.pop((entry.source, tar.place(as_text(entry.uri))), None)) is not None:
            entry.row = columns["row"][index]
        else:
            entry.row = next_row
            next_row += 1
    vanished = manifest_rows.take(pa.array(unseen.values(), pa.int64()))
    entries += [_vanished(row) for row in vanished.to_pylist()]
    shards: dict[int, list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: entry.row):
        shards.setdefault(entry.row // shard_size, []).append(entry)
    return shards


def as_text(uri: str) -> str:
    """An address as a manifest can hold it; bytes that are not UTF-8 are escaped."""
    return uri.encode(errors="backslashreplace").decode()


def stamp(uri: str | None, archives: dict[str, str | None] | None = None) -> str | None:
    """What shows a change of a file without reading it (`storage.stamp`); None without a file.

    Args:
        uri: The file; for one in an archive, the stamp is the archive's.
        archives: Stamps of archives that were asked for already, thousands of times otherwise;
            filled.
    """
    if uri is None:
        return None
    member = tar.parse(uri)
    if member is not None and archives is not None:
        if member.archive not in archives:
            archives[member.archive] = stamp(member.archive)
        return archives[member.archive]
    return storage.stamp(uri if member is None else member.archive)


def _vanished(row: dict[str, Any]) -> Entry:
    names = ("uri", "mask_uri", "source", "role", "row")
    return Entry(**{name: row[name] for name in names}, scheme=row["label_scheme"], gone=row)
