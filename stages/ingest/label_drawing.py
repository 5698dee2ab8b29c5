"""The label files of a run that are drawn from annotations: made, checked and cleaned up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.config import Config
from pipeline.console import Console
from pipeline.records import arrays, manifest, tables
from stages.ingest.config import drawn_labels, ingest_section
from stages.ingest.drawn_labels import damaged, in_folder, unused
from stages.ingest.sources.base import Source


def draw_missing(sources: Sequence[Source], console: Console) -> None:
    """Draws the label files that sources lack; see `Source.draw`."""
    total = sum(source.undrawn for source in sources)
    with console.progress("ingest", total, "label files drawn") as progress:
        for source in sources:
            source.draw(progress.advance)


def unused_files(config: Config, listed: pa.Table) -> list[Path]:
    """Label files that no image has any more, neither in the manifest nor in a listing.

    Args:
        config: The run.
        listed: The images that the sources list now, with their column `mask`.
    """
    rows = _rows(config, ["mask_uri"])["mask_uri"]
    used = {*rows.unique().to_pylist(), *listed["mask"].unique().to_pylist()} - {None}
    return unused(drawn_labels(config), used)


def damaged_files(config: Config, listed: pa.Table) -> list[str]:
    """Addresses of label files that are missing, or not those that ingest read.

    Args:
        config: The run.
        listed: The images that the sources list now: `mask`, `problem` and `present`.
    """
    sources = ingest_section(config).sources.values()
    if not any(source.source.component.draws for source in sources):
        return []
    good = listed.filter(pc.and_(listed["present"], pc.is_null(listed["problem"])))
    rows = _rows(config, ["mask_uri", "mask_id"])
    is_listed = pc.is_in(rows["mask_uri"], value_set=arrays.whole(good["mask"]))
    return damaged(drawn_labels(config), rows.filter(is_listed))


def not_drawn(config: Config, rows: pa.Table) -> pa.Table:
    """Those of some rows of the images manifest whose label files are the user's own."""
    return rows.filter(pc.invert(in_folder(rows["mask_uri"], drawn_labels(config))))


def _rows(config: Config, columns: Sequence[str]) -> pa.Table:
    return manifest.read(config.manifests / tables.IMAGES.name, tables.IMAGES, columns)
