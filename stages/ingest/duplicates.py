"""Equal images: one of them counts, whatever shards they are in."""

from collections.abc import Iterable
from typing import Any

PRECEDENCE = ("test", "val", "labeled", "unlabeled", "ood")
"""Roles in the order in which they keep an image: what measures a model must not train it."""


def settle(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Marks all but the first of equal good images, by role and then by row, as duplicates.

    Args:
        rows: Rows of the whole images manifest; `status` and `error_message` change in place.

    Returns:
        The rows that changed.
    """
    good = [row for row in rows if row["status"] in ("ok", "duplicate")]
    good.sort(key=lambda row: (PRECEDENCE.index(row["role"]), row["row"]))
    first: dict[str, dict[str, Any]] = {}
    changed = []
    for row in good:
        kept = first.setdefault(row["image_id"], row)
        status, message = "ok", None
        if kept is not row:
            status = "duplicate"
            message = f"same content as {kept['uri']} of source {kept['source']}"
        if (row["status"], row.get("error_message")) != (status, message):
            row |= {"status": status, "error_message": message}
            changed.append(row)
    return changed
