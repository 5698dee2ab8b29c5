"""The order in which labelers run when some read the stored labels of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.errors import ConfigError


def dependency_rounds(members: Mapping[str, Sequence[str]], section: str) -> list[list[str]]:
    """Groups labelers into rounds: a labeler reads only labels of earlier rounds.

    Args:
        members: The labelers that each labeler reads, by name.
        section: The section's file and key, for errors.

    Raises:
        ConfigError: A member does not exist, or a labeler depends on itself.
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
            cycle = _cycle(left)
            what = f"the labeler would read its own labels: {' -> '.join(cycle)}"
            where = f"{section}.{cycle[0]}.members"
            raise ConfigError(what, where=where, fix="remove one of these members")
        found.append(ready)
        left = {name: own for name, own in left.items() if name not in ready}
    return found


def _cycle(members: Mapping[str, Sequence[str]]) -> list[str]:
    """A cycle, its first name repeated at the end; each labeler must read another of `members`."""
    path = [next(iter(members))]
    while path.count(path[-1]) == 1:
        path.append(next(member for member in members[path[-1]] if member in members))
    return path[path.index(path[-1]) :]
