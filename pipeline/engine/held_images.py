"""The images that parts were made from, compared with the images manifest as it is now.

An image that is gone keeps its labels, so a part may hold more images than its unit plans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from pipeline.config.config_section import Facts
from pipeline.files import storage
from pipeline.records import arrays, manifest, part_file, tables
from pipeline.records.sharded_table import ShardedTable
from pipeline.records.tables import Table

GONE = "gone"
"""Status of an image that is no longer listed."""


class HeldImages:
    """The rows of a folder's parts whose images the run still knows with the same bytes.

    Damaged parts count as parts without rows: they are made again.

    Args:
        folder: The folder of the parts.
        table: Their kind, with the columns row and image_id.
        images: Folder of the images manifest.
        columns: Columns of the images manifest whose digest is a fact of each part.
        shard_size: Row numbers in a shard.
    """

    def __init__(
        self, folder: Path, table: Table, images: Path, columns: Sequence[str], shard_size: int
    ) -> None:
        made = manifest.read_undamaged(folder, table, ["row", "image_id"])
        wanted = dict.fromkeys(("row", "image_id", "status", *columns))
        known = ShardedTable(manifest.read(images, tables.IMAGES, [*wanted]), shard_size).table
        self._made, self._columns = arrays.numbers(made["row"]), columns
        position = _positions(self._made, arrays.numbers(known["row"]))
        is_known = position >= 0
        there = known.take(arrays.integers(position[is_known]))
        same = pc.equal(there["image_id"], made["image_id"].filter(arrays.flags(is_known)))
        self._held = ShardedTable(there.filter(pc.fill_null(same, arrays.flag(False))), shard_size)

    @property
    def shards(self) -> list[int]:
        """Numbers of the shards whose part holds such an image, ascending."""
        return self._held.shards

    @cached_property
    def digests(self) -> dict[int, str]:
        """By shard, the digest of its images as they are now; it was a fact of the part."""
        return self._held.digests(self._columns)

    def uncovered(self, images: ShardedTable) -> set[int]:
        """Numbers of the shards whose part lacks one of these images."""
        rows = arrays.numbers(images.table["row"])
        return {*(rows[~np.isin(rows, self._made)] // images.shard_size).tolist()}

    def gone(self) -> dict[int, tuple[set[int], str]]:
        """By shard whose part holds images that are gone: their rows, and a digest of the rest."""
        table, size = self._held.table, self._held.shard_size
        is_gone = pc.equal(table["status"], arrays.text(GONE))
        if not pc.any(is_gone).as_py():
            return {}
        gone = ShardedTable(table.filter(is_gone), size)
        digests = ShardedTable(table.filter(pc.invert(is_gone)), size).digests(self._columns)
        return {
            shard: ({*gone[shard]["row"].to_pylist()}, digests.get(shard, ""))
            for shard in gone.shards
        }


def _positions(rows: npt.NDArray[np.int64], known: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The position of each row number among known ones, which ascend; -1 for unknown rows."""
    if not len(known):
        return np.full(len(rows), -1)
    found = np.searchsorted(known, rows).clip(max=len(known) - 1)
    return np.where(known[found] == rows, found, -1)


@dataclass(frozen=True)
class Drop:
    """Rows to drop from a part, since their images are gone.

    Attributes:
        part: The part.
        table: Its kind.
        rows: Numbers of the rows.
        facts: What the other rows depend on.
    """

    part: Path
    table: Table
    rows: set[int]
    facts: Facts

    def apply(self) -> None:
        """Writes the part again without these rows; deletes a part that would have none."""
        table = manifest.read_part(self.part, self.table)
        rest = table.filter(arrays.flags(~np.isin(arrays.numbers(table["row"]), [*self.rows])))
        if rest.num_rows:
            part_file.replace_rows(self.part, rest, self.facts)
        else:
            storage.remove(self.part)

    def __str__(self) -> str:
        count = len(self.rows)
        return f"{count} row{'s'[: count != 1]} of images that are gone from {self.part}"
