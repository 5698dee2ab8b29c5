"""Which row every image has: rows never move, new images go to new shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.errors import ConfigError


@dataclass(frozen=True)
class Entry:
    """A file that a source lists, or listed once.

    Attributes:
        uri: Path of the image.
        mask_uri: Path of its label file, if any.
        source: Name of its source.
        role: What it is for.
        scheme: The vocabulary's scheme of the label file.
        row: Its place; -1 before it has one.
        gone: Its manifest row, where the source no longer lists it.
    """

    uri: Path
    mask_uri: Path | None
    source: str
    role: str
    scheme: str | None
    row: int = -1
    gone: dict[str, Any] | None = None


def lay_out(
    listed: Sequence[Entry], manifest_rows: pa.Table, shard_size: int
) -> dict[int, list[Entry]]:
    """Gives every listed image a row, and keeps the rows of those no longer listed.

    Args:
        listed: What the sources list now, in order.
        manifest_rows: The images manifest so far.
        shard_size: Images a shard.

    Returns:
        The entries of each shard, in the order of rows.

    Raises:
        ConfigError: The manifest was made with another shard size.
    """
    known = {(row["source"], row["uri"]): row for row in manifest_rows.to_pylist()}
    if any(row["row"] // shard_size != row["shard"] for row in known.values()):
        what = f"{shard_size}, but this run's images were laid out with another size"
        fix = "set it back, or start a new run: --set run=NAME"
        raise ConfigError(what, where="ingest.shard_size", fix=fix)
    next_row = (1 + max((row["shard"] for row in known.values()), default=-1)) * shard_size
    entries = []
    for entry in listed:
        if (row := known.pop((entry.source, str(entry.uri)), None)) is not None:
            entries.append(_placed(entry, row["row"]))
        else:
            entries.append(_placed(entry, next_row))
            next_row += 1
    entries += [_vanished(row) for row in known.values()]
    shards: dict[int, list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: entry.row):
        shards.setdefault(entry.row // shard_size, []).append(entry)
    return shards


def stamp(path: Path | None) -> str | None:
    """Size and modification time of a file, to see changes without reading; None without a file."""
    try:
        found = path.stat() if path is not None else None
    except OSError:
        return None
    return None if found is None else f"{found.st_size}:{found.st_mtime_ns}"


def _placed(entry: Entry, row: int) -> Entry:
    return Entry(entry.uri, entry.mask_uri, entry.source, entry.role, entry.scheme, row)


def _vanished(row: dict[str, Any]) -> Entry:
    mask = Path(row["mask_uri"]) if row["mask_uri"] else None
    place = (Path(row["uri"]), mask, row["source"], row["role"], row["label_scheme"], row["row"])
    return Entry(*place, gone=row)
