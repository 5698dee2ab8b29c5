"""How often finished work was done again on request: with `--force` or `--strict-versions`.

Its facts are the same as before, so that what was made from it would stay fresh. Units that read a
part therefore have its count among their facts. The counts lie in one file of the run's manifests.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from pipeline.config.config_section import Facts
from pipeline.files import storage

PREFIX = "redone."
"""Prefix of the facts, before the name of what was done again."""
_FILE = ".redone.json"


class Redone:
    """The counts of a run as they are now.

    Args:
        manifests: Folder of the run's manifests.
    """

    def __init__(self, manifests: Path) -> None:
        self._manifests = manifests
        self._counts: dict[str, int] = {}
        with suppress(FileNotFoundError, ValueError):
            self._counts = json.loads(storage.read_bytes(manifests / _FILE))

    @property
    def is_empty(self) -> bool:
        """Whether nothing was done again."""
        return not self._counts

    def facts(self, what: str, parts: Callable[[], Iterable[Path]]) -> Facts:
        """The fact of a unit that reads these parts; none if they were not done again.

        Args:
            what: What the parts hold: "labels of clip".
            parts: Gives the parts, in their places; called only where anything was done again.
        """
        if self.is_empty:
            return {}
        count = sum(self._counts.get(self._name(part), 0) for part in parts())
        return {f"{PREFIX}{what}": count} if count else {}

    def add(self, parts: Iterable[Path]) -> None:
        """Counts parts that are about to be done again; only for the holder of the run's lock."""
        names = [self._name(part) for part in parts]
        for name in names:
            self._counts[name] = self._counts.get(name, 0) + 1
        if names:
            content = json.dumps(self._counts, indent=0, sort_keys=True).encode()
            storage.write_bytes(self._manifests / _FILE, content)

    def _name(self, part: Path) -> str:
        return storage.relative(part, self._manifests)
