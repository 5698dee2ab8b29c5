"""Tables that are kept until what they were made from changes: indexes, which are caches."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import StorageError
from pipeline.files import storage


def read(path: Path, made_from: str) -> tuple[pa.Table, dict[str, Any]] | None:
    """Reads a table and the plain values kept with it; None if it was made from something else.

    Args:
        path: The file, which may be missing.
        made_from: All that the table depends on.
    """
    try:
        table = pq.ParquetFile(pa.BufferReader(storage.read_bytes(path))).read()
    except (OSError, pa.ArrowException, storage.NoPlainFileError):
        return None
    metadata = {} if table.schema.metadata is None else table.schema.metadata
    if metadata.get(b"made_from") != made_from.encode():
        return None
    return table.replace_schema_metadata(None), json.loads(metadata[b"more"])


def write(path: Path, made_from: str, table: pa.Table, more: dict[str, Any]) -> None:
    """Writes a table if possible; `status` must also work where nothing can be written."""
    table = table.replace_schema_metadata({"made_from": made_from, "more": json.dumps(more)})
    content = pa.BufferOutputStream()
    pq.write_table(table, content, compression="zstd", use_dictionary=False)  # no text twice
    with suppress(OSError, StorageError):
        storage.write_bytes(path, content.getvalue().to_pybytes(), durable=False)
