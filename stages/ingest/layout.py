"""Which row every image has: rows never move, new images go to new shards."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import DataError
from pipeline.files import tar
from pipeline.records import arrays
from pipeline.records.sharded_table import ShardedTable

KNOWN = ("source", "uri", "row", "shard", "mask_uri", "label_scheme", "role")
"""Columns of the images manifest that the layout needs."""


def lay_out(listed: pa.Table, known: pa.Table, shard_size: int) -> ShardedTable:
    """Gives every listed image a row, and keeps the rows of those no longer listed.

    Args:
        listed: What the sources list now, in order: a table as `LISTING`, with the columns
            `source`, `role` and `scheme`.
        known: The images manifest so far, its columns `KNOWN`.
        shard_size: Images a shard.

    Returns:
        The same columns, with `row`, and `present`: whether the image is still listed.

    Raises:
        DataError: A source lists an image twice, which would get one row twice.
    """
    found = _positions(listed, known)
    is_new = found < 0
    next_row = (1 + (pc.max(known["shard"]).as_py() if known.num_rows else -1)) * shard_size
    rows = np.empty(len(found), np.int64)
    known_rows = arrays.numbers(known["row"])
    rows[~is_new] = known_rows[found[~is_new]]
    rows[is_new] = next_row + np.arange(is_new.sum())
    entries = listed.append_column("row", arrays.integers(rows))
    entries = entries.append_column("present", arrays.flags(np.ones(len(rows), np.bool_)))
    vanished = known.filter(arrays.flags(~np.isin(known_rows, rows)))
    return ShardedTable(_joined(entries, vanished), shard_size)


def _joined(entries: pa.Table, vanished: pa.Table) -> pa.Table:
    """The entries, and those of images that are known alone."""
    if not vanished.num_rows:
        return entries
    renamed = {"image": "uri", "mask": "mask_uri", "scheme": "label_scheme"}
    columns = {"present": arrays.flags(np.zeros(vanished.num_rows, np.bool_))}
    for name in entries.column_names:
        if (known_as := renamed.get(name, name)) in vanished.column_names:
            columns[name] = vanished[known_as]
    gone = pa.table(columns)
    return pa.concat_tables([entries, gone], promote_options="default")


def _positions(listed: pa.Table, known: pa.Table) -> npt.NDArray[np.int64]:
    """Where each listed image is among those known; -1: nowhere."""
    is_once = (np.diff(arrays.numbers(known["row"])) > 0).all()
    pairs = (("image", "uri"), ("source", "source"))
    if is_once and all(listed[a].equals(known[b]) for a, b in pairs):
        return np.arange(listed.num_rows)  # as a rule, and quicker to see than to look for
    wanted = _places(listed["source"], listed["image"])
    if pc.count_distinct(wanted).as_py() < listed.num_rows:
        raise _twice(wanted)
    places = _places(known["source"], known["uri"])
    found = pc.index_in(wanted, value_set=places)
    nowhere = arrays.integers(np.array([-1]))[0]
    return arrays.numbers(found.cast(pa.int64()).fill_null(nowhere))


def _twice(places: pa.ChunkedArray) -> DataError:
    counts = pa.table({"place": places}).group_by("place").aggregate([([], "count_all")])
    first = counts.filter(pc.greater(counts["count_all"], 1))["place"][0].as_py()
    source, _, place = first.partition("\0")
    what = f"source {source} lists it twice"
    return DataError(what, where=place, fix="rename one of the files that are called so")


def _places(sources: pa.ChunkedArray, uris: pa.ChunkedArray) -> pa.ChunkedArray:
    """What tells images apart: the source, and the address without a position in an archive."""
    return pc.binary_join_element_wise(sources, tar.without_positions(uris), arrays.text("\0"))
