"""Plain values laid over others: a config over the one it extends, a variant over the rest."""

from enum import Enum, auto
from typing import Any


class _Empty(Enum):
    EMPTY = auto()


EMPTY = _Empty.EMPTY
"""The value of a key that a file leaves empty, unlike null."""


def merged(base: dict[str, Any], own: Any) -> Any:
    """The base with own values laid over it: mappings are merged, other values are replaced.

    A mapping that names another component replaces the base's mapping, whose keys belong to the
    base's component. `EMPTY` keeps the base's value, None removes it. Own keys come first, in their
    order.

    Args:
        base: The default values.
        own: The overriding values: a mapping, `EMPTY`, or another value, which is returned.
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
    """Plain values with None in place of `EMPTY`."""
    if isinstance(value, dict):
        return {key: without_empty(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_empty(item) for item in value]
    return None if value is EMPTY else value
