"""The row of every image: rows never move, new images go to new shards."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import DataError
from pipeline.files import tar
from pipeline.records import arrays
from pipeline.records.sharded_table import ShardedTable

KNOWN_COLUMNS = ("source", "uri", "row", "shard", "mask_uri", "label_scheme", "role")
"""Columns of the images manifest that `assign_rows` takes."""


def assign_rows(listed: pa.Table, known: pa.Table, shard_size: int) -> ShardedTable:
    """Gives every listed image a row, and keeps the rows of images that are no longer listed.

    Args:
        listed: What the sources list now, in order: a table of the schema `LISTING`, with the
            columns `source`, `role` and `scheme`.
        known: The images manifest so far, its columns `KNOWN_COLUMNS`.
        shard_size: Images a shard.

    Returns:
        The columns of `listed`, with `row`, and with `present`: whether the image is still listed.

    Raises:
        DataError: A source lists an image twice, which would give two images the same row.
    """
    found = _known_positions(listed, known)
    is_new = found < 0
    next_row = (1 + (pc.max(known["shard"]).as_py() if known.num_rows else -1)) * shard_size
    rows = np.empty(len(found), np.int64)
    known_rows = arrays.numbers(known["row"])
    rows[~is_new] = known_rows[found[~is_new]]
    rows[is_new] = next_row + np.arange(is_new.sum())
    entries = listed.append_column("row", arrays.integers(rows))
    entries = entries.append_column("present", arrays.flags(np.ones(len(rows), np.bool_)))
    gone = known.filter(arrays.flags(~np.isin(known_rows, rows)))
    return ShardedTable(_with_gone(entries, gone), shard_size)


def _with_gone(entries: pa.Table, gone: pa.Table) -> pa.Table:
    """Appends the manifest rows of images that are no longer listed."""
    if not gone.num_rows:
        return entries
    renamed = {"image": "uri", "mask": "mask_uri", "scheme": "label_scheme"}
    columns = {"present": arrays.flags(np.zeros(gone.num_rows, np.bool_))}
    for name in entries.column_names:
        if (known_as := renamed.get(name, name)) in gone.column_names:
            columns[name] = gone[known_as]
    return pa.concat_tables([entries, pa.table(columns)], promote_options="default")


def _known_positions(listed: pa.Table, known: pa.Table) -> npt.NDArray[np.int64]:
    """The position of each listed image among the known ones; -1 for new images."""
    is_once = (np.diff(arrays.numbers(known["row"])) > 0).all()
    pairs = (("image", "uri"), ("source", "source"))
    if is_once and all(listed[a].equals(known[b]) for a, b in pairs):
        return np.arange(listed.num_rows)  # the usual case, and a comparison is faster than a join
    keys = _image_keys(listed["source"], listed["image"])
    if pc.count_distinct(keys).as_py() < listed.num_rows:
        raise _listed_twice(keys)
    known_keys = _image_keys(known["source"], known["uri"])
    found = pc.index_in(keys, value_set=known_keys)
    nowhere = arrays.integers(np.array([-1]))[0]
    return arrays.numbers(found.cast(pa.int64()).fill_null(nowhere))


def _listed_twice(keys: pa.ChunkedArray) -> DataError:
    counts = pa.table({"key": keys}).group_by("key").aggregate([([], "count_all")])
    first = counts.filter(pc.greater(counts["count_all"], 1))["key"][0].as_py()
    source, _, address = first.partition("\0")
    what = f"source {source} lists this image twice"
    return DataError(what, where=address, fix="rename one of the two files of this name")


def _image_keys(sources: pa.ChunkedArray, uris: pa.ChunkedArray) -> pa.ChunkedArray:
    """Keys that identify images: the source, and the address without the position in an archive."""
    return pc.binary_join_element_wise(sources, tar.places(uris), arrays.text("\0"))
