"""Plain values laid over others: a config over the one it extends, a variant over the rest."""

from enum import Enum, auto
from typing import Any


class _Empty(Enum):
    EMPTY = auto()


EMPTY = _Empty.EMPTY
"""What a key has that a file leaves empty, unlike one that is null."""


def merged(base: dict[str, Any], own: Any) -> Any:
    """The base with own values laid over it: mappings are merged, all else is replaced.

    A mapping that names another component replaces the base's, whose keys are not that one's. What
    is left `EMPTY` stays the base's, and None takes it back. The own keys come first, in their
    order.

    Args:
        base: Values that count where there are no own ones.
        own: What a file has there: a mapping, `EMPTY`, or something else, which is handed back.
    """
    if own is EMPTY:
        return base
    if not isinstance(own, dict) or own.get("name", EMPTY) not in (EMPTY, base.get("name")):
        return own
    laid = {}
    for key, value in own.items():
        below = base.get(key, EMPTY)
        if value is EMPTY:
            laid[key] = below
        else:
            laid[key] = merged(below, value) if isinstance(below, dict) else value
    return laid | {key: value for key, value in base.items() if key not in own}


def without_empty(value: Any) -> Any:
    """Plain values with None where they are `EMPTY`, keys of mappings among them."""
    if isinstance(value, dict):
        return {without_empty(key): without_empty(item) for key, item in value.items()}
    if isinstance(value, list | tuple):  # `!!pairs` has tuples
        return type(value)(without_empty(item) for item in value)
    return None if value is EMPTY else value
