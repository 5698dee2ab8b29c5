"""Changes of the images of a shard since its part was written."""

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.engine.held_images import GONE
from pipeline.engine.staleness import count_changes
from pipeline.files import tar

_MOVED, _ONCE_MORE = "moved", "to be read once more: stamps hold inode and ctime now"


def image_changes(
    rows: Iterable[Mapping[str, Any]], entries: Iterable[Mapping[str, Any]]
) -> dict[str, int]:
    """Counts changes: {"changed": 3, "moved": 1}, where moved ones are equal bytes elsewhere.

    Args:
        rows: Manifest rows: `row`, `uri`, `stamp`, `mask_stamp` and `status`.
        entries: Rows of the layout.
    """
    before = {row["row"]: _state(row["uri"], row) for row in rows if row["status"] != GONE}
    now = {entry["row"]: _state(entry["image"], entry) for entry in entries if entry["present"]}
    more = dict.fromkeys((_MOVED, _ONCE_MORE), 0)
    for row in before.keys() & now.keys():
        what = _kind(before[row], now[row])
        if what is not None:
            more[what] += 1
            before[row] = now[row]
    return count_changes(before, now) | {what: count for what, count in more.items() if count}


def _state(address: str, row: Mapping[str, Any]) -> tuple[str, str | None, str | None]:
    return address, row["stamp"], row["mask_stamp"]


def _kind(
    before: tuple[str, str | None, str | None], now: tuple[str, str | None, str | None]
) -> str | None:
    """The special kind of a change, if it is one."""
    if tar.without_position(before[0]) != tar.without_position(now[0]):
        return _MOVED
    stamps = [pair for pair in zip(before[1:], now[1:], strict=True) if pair != (None, None)]
    # A stamp of earlier versions is the beginning of one of now.
    was_short = all(was and new and new.startswith(f"{was}:") for was, new in stamps)
    return _ONCE_MORE if stamps and was_short else None
