"""Equal images: one of them counts, whatever shards they are in."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

PRECEDENCE = ("test", "val", "labeled", "unlabeled", "ood")
"""Roles in the order in which they keep an image: what measures a model must not train it."""
COMPARED = ("row", "image_id", "role", "source", "uri", "status", "error_message")
"""Columns of the images manifest that this takes."""


def settle(images: pa.Table) -> pa.Table:
    """Which rows must change for all but the first of equal good images to be duplicates.

    The first one is that of the first role in `PRECEDENCE`, and then of the first row.

    Args:
        images: The whole images manifest, its columns `COMPARED`.

    Returns:
        A table of `row` with its new `status` and `error_message`, of the rows that change.
    """
    good = images.filter(pc.is_in(images["status"], pa.array(["ok", "duplicate"])))
    rank = pc.index_in(good["role"], value_set=pa.array(PRECEDENCE))
    good = good.append_column("rank", rank).sort_by([("rank", "ascending"), ("row", "ascending")])
    first = pc.index_in(good["image_id"], value_set=good["image_id"]).combine_chunks()
    is_first = pa.array(np.asarray(first) == np.arange(len(first)))
    kept = good.take(first)
    message = pc.binary_join_element_wise(
        "same content as ", kept["uri"], " of source ", kept["source"], ""
    )
    message = pc.if_else(is_first, pa.scalar(None, pa.string()), message)
    status = pc.if_else(is_first, "ok", "duplicate")
    is_same = pc.and_(
        pc.equal(good["status"], status),
        pc.equal(pc.fill_null(good["error_message"], ""), pc.fill_null(message, "")),
    )
    settled = pa.table({"row": good["row"], "status": status, "error_message": message})
    return settled.filter(pc.invert(is_same))
