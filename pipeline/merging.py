"""Plain values laid over others: a config over the one it extends, a variant over the rest."""

from typing import Any


def merged(base: dict[str, Any], own: Any) -> Any:
    """The base with own values laid over it: mappings are merged, all else is replaced.

    A mapping that names another component replaces the base's, whose keys are not that one's; one
    that is left empty (None) stays the base's. The own keys come first, in their order.

    Args:
        base: Values that count where there are no own ones.
        own: What a file has there: a mapping, None, or a mistake, which is handed back as it is.
    """
    if own is None:
        return base
    if not isinstance(own, dict) or own.get("name", base.get("name")) != base.get("name"):
        return own
    laid = {
        key: merged(below, value) if isinstance(below := base.get(key), dict) else value
        for key, value in own.items()
    }
    return laid | {key: value for key, value in base.items() if key not in own}
