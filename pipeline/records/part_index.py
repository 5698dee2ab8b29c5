"""An index of the parts of a manifest: a copy of their rows and records in one file.

Opening a part takes a fraction of a millisecond, and a run of a million images has 16,000 of them.
An entry counts only while its part has the same stamp, so that parts always win over the index. The
index is outside the folder (`hidden_files.py`), whose readers would count its rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.config_section import Facts
from pipeline.files import storage
from pipeline.records.hidden_files import index_file

_VERSION = "2"
_METADATA_KEY, _CHECKSUM_KEY = b"maskmill.index", b"maskmill.index.checksum"
_SHARD_FACTS = "inputs."
"""Prefix of facts that differ from part to part; each distinct set of the others, with the
versions, is stored once."""


@dataclass(frozen=True)
class IndexedPart:
    """The index entry of a part.

    Attributes:
        stamp: The stamp of its file when it was read.
        num_rows: Number of rows.
        facts: Its facts.
        failed: Number of images to try again.
        versions: Versions of what made it.
    """

    stamp: str
    num_rows: int
    facts: Facts
    failed: int
    versions: Mapping[str, str]


class PartIndex:
    """The index of a folder; empty if the file is missing or unreadable.

    Args:
        folder: The manifest's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._file = index_file(folder)
        self.parts: dict[str, IndexedPart] = {}
        self._first: dict[str, int] = {}
        self._opened: pq.ParquetFile | None = None
        with suppress(OSError, pa.ArrowException, KeyError, TypeError, ValueError):
            self._read_parts()

    def read(self, columns: Sequence[str]) -> pa.Table:
        """The rows of all parts that are in it.

        Raises:
            KeyError: The copy has no such column, or is damaged.
            OSError: It cannot be read any more.
        """
        assert self._opened is not None
        if missing := {*columns} - {*self._opened.schema_arrow.names}:
            raise KeyError(*missing)
        rows = self._opened.read([*columns])
        if rows.num_rows != sum(part.num_rows for part in self.parts.values()):
            raise KeyError("it is damaged")
        return rows.replace_schema_metadata(None)

    def slices(self, rows: pa.Table, names: Iterable[str]) -> list[pa.Table]:
        """The rows of some parts, in their order; what lies side by side is one table.

        Args:
            rows: As `read`.
            names: The parts.
        """
        runs: list[list[int]] = []
        for name in names:
            first, count = self._first[name], self.parts[name].num_rows
            if runs and runs[-1][1] == first:
                runs[-1][1] += count
            else:
                runs.append([first, first + count])
        return [rows.slice(first, end - first) for first, end in runs]

    def write(
        self, parts: Mapping[str, IndexedPart], schema: pa.Schema, rows: Iterable[pa.Table]
    ) -> None:
        """Replaces the copy.

        Args:
            parts: The parts in the order of their rows.
            schema: The columns of the copy.
            rows: The rows of all of them, in any number of tables, of which one is in memory.
        """
        shared: dict[str, int] = {}
        entries = []
        for name, part in parts.items():
            common = {k: v for k, v in part.facts.items() if not k.startswith(_SHARD_FACTS)}
            own = {k: v for k, v in part.facts.items() if k.startswith(_SHARD_FACTS)}
            number = shared.setdefault(json.dumps([common, dict(part.versions)]), len(shared))
            entries.append([name, part.stamp, part.num_rows, number, own, part.failed])
        about = json.dumps({"version": _VERSION, "shared": list(shared), "parts": entries})
        checksum = hashlib.sha256(about.encode()).hexdigest()
        metadata = {_METADATA_KEY: about, _CHECKSUM_KEY: checksum}
        keys: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}
        with (
            storage.replacing(self._file) as temporary,
            pq.ParquetWriter(temporary, schema.with_metadata(metadata), **keys) as file,
        ):
            for table in rows:
                file.write_table(table.replace_schema_metadata(metadata))

    def _read_parts(self) -> None:
        (source,) = storage.arrow_sources([self._file])
        # It stays open: a new index replaces the file and does not change this one.
        self._opened = pq.ParquetFile(source, page_checksum_verification=True)
        metadata = self._opened.metadata.metadata
        text = metadata[_METADATA_KEY]
        if hashlib.sha256(text).hexdigest() != metadata[_CHECKSUM_KEY].decode():
            return
        about = json.loads(text)
        if about["version"] != _VERSION:
            return
        shared = [json.loads(text) for text in about["shared"]]
        parts, first = {}, {}
        position = 0
        for name, stamp, num_rows, number, own, failed in about["parts"]:
            common, versions = shared[number]
            parts[name] = IndexedPart(stamp, num_rows, {**common, **own}, failed, versions)
            first[name] = position
            position += num_rows
        self.parts, self._first = parts, first


@lru_cache(maxsize=2)
def read_index(folder: Path, stamp: str | None) -> PartIndex:
    """The index of a folder, kept for who asks again.

    Args:
        folder: The manifest's folder.
        stamp: Of its index file, as it is now.
    """
    return PartIndex(folder)
