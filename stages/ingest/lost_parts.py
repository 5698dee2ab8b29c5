"""The rows of images whose part of the manifest is damaged or missing.

Labels and masks belong to rows, so images must not get others: a row takes hours to label.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.config.config_section import Facts
from pipeline.errors import StorageError
from pipeline.files import storage
from pipeline.records import manifest, part_file, tables
from pipeline.records.tables import Table

_PLACE = ("row", "shard", "uri", "source")
"""Columns that give an image its row."""
_REST = ("role", "mask_uri", "label_scheme", "image_id", "status")


def keep_places(part: Path, facts: Facts) -> None:
    """Replaces a damaged part by one with the places of its images, which are read again.

    A part in which these cannot be read is deleted.

    Args:
        part: The part, damaged or in the place of another.
        facts: Those of every part; without all others, so that the part is stale.
    """
    columns: dict[str, list[Any]] = {}
    for name in (*_PLACE, *_REST):
        with (
            suppress(*part_file.UNREADABLE),
            pq.ParquetFile(part, page_checksum_verification=True) as file,
        ):
            columns[name] = file.read([name], use_threads=False)[name].to_pylist()
    if not columns.keys() >= {*_PLACE}:
        storage.remove(part)
        return
    values = zip(*columns.values(), strict=True)
    rows = tables.IMAGES.rows(dict(zip(columns, each, strict=True)) for each in values)
    part_file.write_part(part, rows, facts, {})


def rows_of_lost_parts(manifests: Path) -> dict[str, int]:
    """The rows of images whose part is missing while labels or masks of it are there.

    Returns:
        The row of an image by the id of its bytes; of equal images the first one.
    """
    known = {*manifest.part_names(manifests / tables.IMAGES.name)}
    found: dict[str, int] = {}
    for folder, table in _folders(manifests):
        for name in manifest.part_names(folder):
            if name in known:
                continue
            with suppress(StorageError):
                rows = manifest.read_part(folder / name, table, ["row", "image_id"])
                for row in rows.to_pylist():
                    # After @ is how its pixels are read, not what its bytes are.
                    found.setdefault(row["image_id"].partition("@")[0], row["row"])
    return found


def _folders(manifests: Path) -> Iterator[tuple[Path, Table]]:
    """Folders of parts that belong to the shards of images."""
    yield manifests / tables.PROPOSALS.name, tables.PROPOSALS
    for folder in storage.glob(manifests / tables.PSEUDO_LABELS.name, "labeler=*"):
        yield folder, tables.PSEUDO_LABELS
