"""Equal images: only the first one is used, in whichever shards they are."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.records import arrays

PRECEDENCE = ("test", "val", "labeled", "unlabeled", "ood")
"""Roles, the one that keeps an image first: test and val images must never train a model."""
SEARCHED_COLUMNS = ("row", "image_id", "status", "error_message")
"""Columns of the images manifest that `maybe_changed` takes."""
COMPARED_COLUMNS = (
    *("row", "image_id", "mask_id", "role", "source", "uri", "status", "error_message"),
)
"""Columns of the images manifest that `status_changes` takes."""
_ANOTHER_MASK = ", which has another label file"
"""End of the message of an image whose label file is not that of its equal one."""


def maybe_changed(images: pa.Table) -> npt.NDArray[np.int64]:
    """The rows of images that equal others, did so, or have a message: all others stay as they are.

    Args:
        images: The whole images manifest, its columns `SEARCHED_COLUMNS`.
    """
    good = images.filter(pc.is_in(images["status"], pa.array(["ok", "duplicate"])))
    encoded = arrays.whole(_bytes_ids(good).dictionary_encode())
    numbers = np.asarray(encoded.indices)
    is_repeated = np.bincount(numbers, minlength=1)[numbers] > 1
    was_changed = pc.or_(pc.equal(good["status"], "duplicate"), pc.is_valid(good["error_message"]))
    found: npt.NDArray[np.int64] = arrays.numbers(good["row"])
    changed: npt.NDArray[np.int64] = found[is_repeated | arrays.truth(was_changed)]
    return changed


def status_changes(images: pa.Table) -> pa.Table:
    """Finds the rows that must change so that all equal good images but the first are duplicates.

    The first one has the first role in `PRECEDENCE` and, within that role, a label file if any has
    one, and the lowest row.

    Args:
        images: Rows of the images manifest, at least those of `maybe_changed`, and all images that
            are equal to one of them; its columns `COMPARED_COLUMNS`.

    Returns:
        A table of the rows that change: `row`, and its new `status` and `error_message`.
    """
    good = images.filter(pc.is_in(images["status"], pa.array(["ok", "duplicate"])))
    good = good.set_column(good.column_names.index("image_id"), "image_id", _bytes_ids(good))
    rank = pc.index_in(good["role"], value_set=pa.array(PRECEDENCE))
    good = good.append_column("rank", rank)
    good = good.append_column("has_no_mask", pc.cast(pc.is_null(good["mask_id"]), pa.int8()))
    good = good.sort_by([(name, "ascending") for name in ("rank", "has_no_mask", "row")])
    first = pc.index_in(good["image_id"], value_set=good["image_id"]).combine_chunks()
    is_first = pa.array(np.asarray(first) == np.arange(len(first)))
    kept = good.take(first)
    differs = pc.fill_null(pc.not_equal(good["mask_id"], kept["mask_id"]), False)
    other = pc.if_else(differs, _ANOTHER_MASK, "")
    message = pc.binary_join_element_wise(
        "same content as ", kept["uri"], " of source ", kept["source"], other, ""
    )
    message = pc.if_else(is_first, pa.scalar(None, pa.string()), message)
    status = pc.if_else(is_first, "ok", "duplicate")
    is_same = pc.and_(
        pc.equal(good["status"], status),
        pc.equal(pc.fill_null(good["error_message"], ""), pc.fill_null(message, "")),
    )
    wanted = pa.table({"row": good["row"], "status": status, "error_message": message})
    return wanted.filter(pc.invert(is_same))


def _bytes_ids(images: pa.Table) -> pa.ChunkedArray:
    """Ids of the bytes of images, whatever their value ranges are."""
    return pc.utf8_slice_codeunits(images["image_id"], 0, 16)


def contradictions(images: pa.Table) -> Iterator[str]:
    """A line about equal images with different label files, of which one is not used.

    Args:
        images: Columns uri, status and error_message of the images manifest.
    """
    found = images.filter(pc.ends_with(images["error_message"], _ANOTHER_MASK))
    if found.num_rows:
        first = found.slice(0, 1).to_pylist()[0]
        images_are = f"{found.num_rows} duplicate{'s'[: found.num_rows != 1]}"
        yield (
            f"{images_are} with another label file than the equal image that is used; "
            f"first: {first['uri']}: {first['error_message']}"
        )


def listed_twice(images: pa.Table) -> npt.NDArray[np.bool_]:
    """Which duplicates are the very file that is used, since two sources list it.

    Args:
        images: Duplicates, with the columns uri and error_message of the images manifest.

    Returns:
        (N,) bool.
    """
    pairs = zip(images["uri"].to_pylist(), images["error_message"].to_pylist(), strict=True)
    return np.array([message.startswith(_same_as(uri)) for uri, message in pairs], dtype=bool)


def _same_as(uri: str) -> str:
    return f"same content as {uri} of source "
