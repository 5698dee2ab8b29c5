"""A table of images by shard, fast enough for plans over a million images."""

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.records import arrays


class ShardedTable:
    """Images in the order of their row numbers, divided into shards.

    Args:
        table: Has a column `row`, the row number of each image in the run; in any order.
        shard_size: Row numbers in a shard.

    Attributes:
        table: The table, ordered by `row`.
        shard_size: Row numbers in a shard.
        shards: Numbers of the shards that have images, ascending.
    """

    def __init__(self, table: pa.Table, shard_size: int) -> None:
        numbers = arrays.numbers(table["row"])
        if (numbers[1:] < numbers[:-1]).any():
            order = np.argsort(numbers, kind="stable")
            table, numbers = table.take(arrays.integers(order)), numbers[order]
        self.table, self.shard_size = table, shard_size
        shards, starts = np.unique(numbers // shard_size, return_index=True)
        self.shards: list[int] = shards.tolist()
        bounds = [*starts.tolist(), len(numbers)]
        self._spans = dict(zip(self.shards, pairwise(bounds), strict=True))

    def __getitem__(self, shard: int | None) -> pa.Table:
        """The rows of a shard."""
        assert shard is not None
        start, end = self._spans[shard]
        return self.table.slice(start, end - start)

    def rows(self, shard: int | None) -> list[dict[str, Any]]:
        """The rows of a shard as dicts."""
        rows: list[dict[str, Any]] = self[shard].to_pylist()
        return rows

    def digests(self, columns: Sequence[str]) -> dict[int, str]:
        """A digest of these columns for each shard."""
        spans = list(self._spans.values())
        found = _digests(self.table.select(list(columns)), spans)
        return dict(zip(self.shards, found, strict=True))


def digest_rows(table: pa.Table) -> str:
    """A digest, 16 hex digits: tables of the same columns and rows have the same one."""
    (found,) = _digests(table, [(0, table.num_rows)])
    return found


def _digests(table: pa.Table, spans: Sequence[tuple[int, int]]) -> list[str]:
    """The digest of each span of rows."""
    hashes = [hashlib.sha256(str(end - start).encode()) for start, end in spans]
    absent = arrays.integers(np.array([-1]))[0]
    for column in table.columns:
        if pa.types.is_string(column.type):
            texts = arrays.whole(column.cast(pa.large_string()))
            lengths = np.from_dlpack(pc.binary_length(texts).fill_null(absent)).data
            texts = texts.fill_null(arrays.text("").cast(texts.type))
            _, offsets_buffer, content = texts.buffers()
            size = texts.offset + len(texts) + 1
            offsets = np.frombuffer(offsets_buffer, np.int64, size)[texts.offset :]
            bytes_of = memoryview(b"" if content is None else content)
            pieces = zip(hashes, spans, offsets[np.array(spans, np.int64)].tolist(), strict=True)
            for hashed, (start, end), (first, last) in pieces:
                hashed.update(lengths[start:end])
                hashed.update(bytes_of[first:last])
        else:
            values = arrays.numbers(column.cast(pa.int64()).fill_null(absent)).data
            for hashed, (start, end) in zip(hashes, spans, strict=True):
                hashed.update(values[start:end])
    return [hashed.hexdigest()[:16] for hashed in hashes]
