"""The rows of a folder of predictions: `predictions.parquet`, made when all is done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.engine.output_folder import OutputFolder
from pipeline.errors import DataError
from pipeline.records.rows import PredictionRow
from pipeline.records.tables import PREDICTIONS
from stages.predict.output import TABLE

_ROWS = 10_000


def earlier_rows(folder: OutputFolder) -> dict[str, PredictionRow]:
    """The rows of earlier calls by the address of the image.

    Raises:
        DataError: The table is damaged.
    """
    file = folder.path / TABLE
    found: list[Any] = []
    if file.exists():
        try:
            found += pq.read_table(file).to_pylist()
        except (pa.ArrowException, OSError) as error:
            fix = "delete it: the images are predicted again"
            raise DataError("damaged table", where=str(file), fix=fix) from error
    found += folder.pieces()
    return {row["image"]: row for row in found}


def write_rows(
    folder: OutputFolder, rows: Mapping[str, PredictionRow], order: Iterable[str]
) -> None:
    """Writes the table: the images of this call in their order, then those of earlier calls."""
    with (
        folder.replacing(TABLE) as temporary,
        pq.ParquetWriter(temporary, PREDICTIONS.schema, compression="zstd") as writer,
    ):
        ordered = _ordered(rows, order)
        while part := [*islice(ordered, _ROWS)]:
            writer.write_table(PREDICTIONS.rows(part))


def _ordered(rows: Mapping[str, PredictionRow], order: Iterable[str]) -> Iterator[PredictionRow]:
    first = dict.fromkeys(order)
    yield from (rows[image] for image in first)
    yield from (rows[image] for image in sorted(rows.keys() - first.keys()))
