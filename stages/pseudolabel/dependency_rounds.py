"""Labelers that read what others of the section have stored: in which order, and from where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.errors import ConfigError


def rounds(members: Mapping[str, Sequence[str]], section: str) -> list[list[str]]:
    """Labelers in rounds: none reads what is labeled in its own round or a later one.

    Args:
        members: What each labeler reads, by name.
        section: What to call the section in an error: file and key.

    Raises:
        ConfigError: One reads what does not exist, or in the end itself.
    """
    found: list[list[str]] = []
    left = dict(members)
    for name, own in members.items():
        for unknown in (member for member in own if member not in members):
            fix = f"use one of: {', '.join(other for other in members if other != name)}"
            raise ConfigError(f"no labeler {unknown!r}", where=f"{section}.{name}.members", fix=fix)
    while left:
        ready = [name for name, own in left.items() if not left.keys() & {*own}]
        if not ready:
            what = f"it reads its own labels, by way of {' -> '.join(_circle(left))}"
            where = f"{section}.{_circle(left)[0]}.members"
            raise ConfigError(what, where=where, fix="leave one of them out")
        found.append(ready)
        left = {name: own for name, own in left.items() if name not in ready}
    return found


def _circle(members: Mapping[str, Sequence[str]]) -> list[str]:
    """Names that lead back to the first, of labelers that all read one of these."""
    way = [next(iter(members))]
    while way.count(way[-1]) == 1:
        way.append(next(member for member in members[way[-1]] if member in members))
    return way[way.index(way[-1]) :]
