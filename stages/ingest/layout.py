"""The row of every image: rows never move, and follow the bytes; new images go to new shards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engine.held_images import GONE
from pipeline.errors import DataError
from pipeline.files import tar
from pipeline.records import arrays
from pipeline.records.sharded_table import ShardedTable
from stages.ingest.moved import Unplaced, paired, twins, unsure

Positions = npt.NDArray[np.int64]
Read = Callable[[Sequence[str]], pa.Table]
"""Reads these columns of the images manifest so far."""

_KNOWN_COLUMNS = ("source", "uri", "row", "shard", "mask_uri", "label_scheme", "role")
_COMPARED_COLUMNS = ("role", "uri", "stamp", "image_id", "status")
"""Columns that only images without a place are compared by."""


@dataclass(frozen=True)
class Layout:
    """The rows of all images.

    Attributes:
        table: The columns of a listing, with `row`, and with `present`: whether the image is still
            listed and has a file.
        unsure: Addresses of new images that may be known ones which are gone from another address:
            their sizes are equal, and their bytes must be compared.
    """

    table: ShardedTable
    unsure: list[str]


def assign_rows(
    listed: pa.Table,
    read: Read,
    shard_size: int,
    contents: Mapping[str, str | None],
    lost: Mapping[str, int],
) -> Layout:
    """Gives every listed image a row, and keeps the rows of images that are gone.

    An image has the row of its source and address. One that has none there gets the row of equal
    bytes that are gone from another address, and only then a new row.

    Args:
        listed: What the sources list now, in order: a table of the schema `LISTING`, with the
            columns `source`, `role` and `scheme`.
        read: Reads the images manifest so far.
        shard_size: Images a shard.
        contents: By address, the `image_id` of new images that were compared.
        lost: By `image_id`, rows of images whose part is lost.

    Raises:
        DataError: A source lists an image twice, which would give two images the same row.
    """
    known = read(_KNOWN_COLUMNS)
    found = _known_positions(listed, known)
    listed, found = _without_lost_files(listed, found, read)
    known_rows = arrays.numbers(known["row"])
    is_lost = ~np.isin(known_rows, known_rows[found[found >= 0]])
    waiting: list[str] = []
    if is_lost.any():
        found, known_rows, waiting = _follow_bytes(listed, found, is_lost, read, contents)
        is_lost = ~np.isin(np.arange(len(known_rows)), found)
    is_new = found < 0
    shards = [pc.max(known["shard"]).as_py() if known.num_rows else -1]
    shards += [row // shard_size for row in lost.values()]
    rows = np.empty(len(found), np.int64)
    rows[~is_new] = known_rows[found[~is_new]]
    if lost and is_new.any():
        is_new, compare = _take_lost_rows(listed, rows, is_new, contents, lost, shard_size)
        waiting = [*waiting, *compare]
    rows[is_new] = (1 + max(shards)) * shard_size + np.arange(is_new.sum())
    entries = listed.append_column("row", arrays.integers(rows))
    entries = entries.append_column("present", arrays.flags(np.ones(len(rows), np.bool_)))
    is_gone = is_lost & ~np.isin(known_rows, rows)
    known = known.set_column(known.column_names.index("row"), "row", arrays.integers(known_rows))
    gone = known.filter(arrays.flags(is_gone))
    return Layout(ShardedTable(_with_gone(entries, gone), shard_size), waiting)


def _follow_bytes(
    listed: pa.Table,
    found: Positions,
    is_lost: npt.NDArray[np.bool_],
    read: Read,
    contents: Mapping[str, str | None],
) -> tuple[Positions, Positions, list[str]]:
    """Gives images without a place the rows of equal bytes that have lost theirs.

    Returns:
        The position of each listed image among the known ones, -1 for new images; the row of each
        known image; and the addresses whose bytes must be compared first.
    """
    rows = arrays.numbers(read(["row"])["row"]).copy()
    found, (lost,), (new,) = found.copy(), np.nonzero(is_lost), np.nonzero(found < 0)
    statuses = read(["status"])["status"].take(arrays.integers(lost))
    was_gone = arrays.truth(pc.equal(statuses, arrays.text(GONE)))
    waiting: list[str] = []
    if not len(new) and was_gone.all():
        return found, rows, waiting  # nothing has changed
    known = read(_COMPARED_COLUMNS)
    if len(new):
        lost = lost[np.argsort(was_gone, kind="stable")]  # those that the last run had come first
        ours = Unplaced.listed(listed.take(arrays.integers(new)), contents)
        theirs = Unplaced.known(known.take(arrays.integers(lost)))
        pairs = paired(ours, theirs)
        for one, other in pairs.items():
            found[new[one]] = lost[other]
        rest = sorted({*range(len(lost))} - {*pairs.values()})
        waiting = unsure(ours, {*range(len(new))} - pairs.keys(), theirs, rest, contents)
        lost = np.sort(lost[rest])
    for one, other in twins(known, lost, listed, found):
        rows[[one, other]] = rows[[other, one]]
    return found, rows, waiting


def _take_lost_rows(
    listed: pa.Table,
    rows: Positions,
    is_new: npt.NDArray[np.bool_],
    contents: Mapping[str, str | None],
    lost: Mapping[str, int],
    shard_size: int,
) -> tuple[npt.NDArray[np.bool_], list[str]]:
    """Gives new images the rows that equal bytes had in a part that is lost.

    Other new images fill the gaps between these rows in order, as they most likely did before.

    Returns:
        Which images still need a row, and the addresses whose bytes must be compared first.
    """
    (new,) = np.nonzero(is_new)
    addresses = listed["image"].take(arrays.integers(new)).to_pylist()
    is_new, free = is_new.copy(), dict(lost)
    for position, address in zip(new.tolist(), addresses, strict=True):
        image_id = contents.get(address)
        row = None if image_id is None else free.pop(image_id, None)
        if row is not None:
            rows[position], is_new[position] = row, False
    compare = [address for address in addresses if address not in contents]
    last = {row // shard_size: row for row in sorted(lost.values())}
    first = ((shard * shard_size, row) for shard, row in last.items())
    held = {*lost.values()}
    gaps = (row for start, end in first for row in range(start, end) if row not in held)
    if not compare:
        for position, row in zip(np.nonzero(is_new)[0].tolist(), gaps, strict=False):
            rows[position], is_new[position] = row, False
    return is_new, compare


def _without_lost_files(
    listed: pa.Table, found: Positions, read: Read
) -> tuple[pa.Table, Positions]:
    """Leaves out images that a list names but whose files, read before, are missing."""
    if not listed["stamp"].null_count:
        return listed, found
    has_no_file = pc.and_(pc.is_null(listed["stamp"]), pc.is_null(listed["problem"]))
    (suspects,) = np.nonzero(arrays.truth(has_no_file) & (found >= 0))
    stamps = read(["stamp"])["stamp"].take(arrays.integers(found[suspects]))
    is_there = np.ones(len(found), np.bool_)
    is_there[suspects[arrays.truth(pc.is_valid(stamps))]] = False
    return listed.filter(arrays.flags(is_there)), found[is_there]


def _with_gone(entries: pa.Table, gone: pa.Table) -> pa.Table:
    """Appends the manifest rows of images that are gone."""
    if not gone.num_rows:
        return entries
    renamed = {"image": "uri", "mask": "mask_uri", "scheme": "label_scheme"}
    columns = {"present": arrays.flags(np.zeros(gone.num_rows, np.bool_))}
    for name in entries.column_names:
        if (known_as := renamed.get(name, name)) in gone.column_names:
            columns[name] = gone[known_as]
    return pa.concat_tables([entries, pa.table(columns)], promote_options="default")


def _known_positions(listed: pa.Table, known: pa.Table) -> Positions:
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
    return pc.binary_join_element_wise(sources, tar.without_positions(uris), arrays.text("\0"))
