"""Images that are gone: how many of which source, and when to ask before going on."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engine.held_images import GONE
from pipeline.errors import DataError
from pipeline.files import storage
from pipeline.records import arrays

_SHARE = 10
"""More than one of so many images of a source gone at once is asked about."""
_FIX = (
    "if a disk is not mounted, mount it; to go on without them: maskmill run --accept-gone (their "
    "rows and labels stay until `maskmill gc`)"
)


@dataclass(frozen=True)
class Vanished:
    """The good images of a source that are gone since the last run.

    Attributes:
        source: Name of the source.
        gone: How many there are.
        total: How many good images the source had.
        first: Address of the first one.
        away: The folder of the source, if that is missing or empty.
    """

    source: str
    gone: int
    total: int
    first: str
    away: Path | None

    @property
    def is_asked_about(self) -> bool:
        """Whether so many are gone that a run asks; one image of several never is."""
        is_much = self.gone * _SHARE > self.total
        return is_much and (self.gone > 1 or self.gone == self.total)

    def __str__(self) -> str:
        count = f"all {self.total}" if self.gone == self.total else f"{self.gone} of {self.total}"
        cause = "" if self.away is None else f" ({self.away} is missing or empty)"
        return f"{count} images of source {self.source} are gone, first: {self.first}{cause}"


def vanished(
    layout: pa.Table, known: pa.Table, sources: Collection[str], away: Mapping[str, Path]
) -> list[Vanished]:
    """Counts the good images that are gone since the last run, by source of the config.

    Args:
        layout: The layout, with its columns `row`, `present`, `source` and `image`.
        known: The images manifest so far: `row`, `source` and `status`.
        sources: The sources. One that the user took out of the config is not missed.
        away: Folders that are missing or empty, by source.
    """
    absent = layout.filter(pc.invert(layout["present"]))
    absent = absent.filter(pc.is_in(absent["source"], arrays.texts(sources)))
    if not absent.num_rows:
        return []
    before = arrays.having(known, "status", "ok")
    is_new = np.isin(arrays.numbers(absent["row"]), arrays.numbers(before["row"]))
    absent = absent.filter(arrays.flags(is_new))
    totals = {
        pair["values"]: pair["counts"] for pair in before["source"].value_counts().to_pylist()
    }
    found = []
    for source in sources:
        own = arrays.having(absent, "source", source)
        if own.num_rows:
            total = max(own.num_rows, totals.get(source, 0))
            first = own["image"][0].as_py()
            found.append(Vanished(source, own.num_rows, total, first, away.get(source)))
    return found


def remarks(found: Sequence[Vanished], unsure: int, statuses: pa.ChunkedArray) -> list[str]:
    """Lines for `status`.

    Args:
        found: The images that are gone since the last run.
        unsure: How many new images may be known ones at another address.
        statuses: The column `status` of the images manifest.
    """
    lines = [f"{one}; a run asks before it goes on" for one in found if one.is_asked_about]
    if unsure:
        count = f"{unsure} new image{'s'[: unsure != 1]}"
        lines.append(f"{count} may be known ones at another place: a run compares their bytes")
    if kept := pc.sum(pc.equal(statuses, arrays.text(GONE))).as_py():
        lines.append(f"{kept} gone: rows and labels stay until `maskmill gc`")
    return lines


def ask(found: Sequence[Vanished], config: Path) -> None:
    """Stops a run if many images of a source are gone.

    Raises:
        DataError: Says of which sources, and how to go on.
    """
    if many := [str(one) for one in found if one.is_asked_about]:
        raise DataError("; ".join(many), where=f"{config}: ingest.sources", fix=_FIX)


def is_away(folder: Path) -> bool:
    """Whether a folder is missing or has no file, as where a disk is not mounted."""
    return not folder.is_dir() or not (storage.is_object(folder) or _has_file(str(folder)))


def _has_file(folder: str) -> bool:
    """Whether there is a file in a folder or below; lists no more than it must."""
    below = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                return True
            below.append(entry.path)
    return any(map(_has_file, below))
