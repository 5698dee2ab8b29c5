"""Counts of finished work that was done again, with `--force` or `--strict-versions`.

Its facts are the same as before, so that what was made from it would stay fresh. Units that read a
part therefore have its count among their facts. A count belongs to a part of certain facts: kept
parts that return have their own. The counts are in one file of the run's manifests.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from pipeline.config.config_section import Facts
from pipeline.errors import StorageError
from pipeline.files import storage
from pipeline.records import part_file

PREFIX = "redone."
"""Prefix of the facts, before the name of what was done again."""
_FILE = ".redone.json"


def without_shard(facts: Facts) -> Facts:
    """The facts that all parts of a kind share: without those of images and of what was redone."""
    return {
        k: v for k, v in facts.items() if k != part_file.IMAGES_FACT and not k.startswith(PREFIX)
    }


class Redone:
    """The counts of a run as they are now.

    Args:
        manifests: Folder of the run's manifests.
    """

    def __init__(self, manifests: Path) -> None:
        self._manifests = manifests
        self._counts: defaultdict[str, dict[str, int]] = defaultdict(dict)
        with suppress(FileNotFoundError, ValueError, TypeError):
            self._counts.update(json.loads(storage.read_bytes(manifests / _FILE)))

    @property
    def is_empty(self) -> bool:
        """Whether nothing was done again."""
        return not self._counts

    def count(self, parts: Iterable[Path], facts: Facts | None = None) -> int:
        """The number of times that these parts were done again.

        Args:
            parts: The parts, in their places.
            facts: The facts that they will have, see `without_shard`; None: those that they have.
        """
        total = 0
        for part in parts:
            if own := self._counts.get(storage.relative(part, self._manifests)):
                with suppress(StorageError):  # a damaged part is made again anyway
                    its = part_file.read_facts(part) if facts is None else facts
                    total += own.get(_key(its or {}), 0)
        return total

    def facts(self, what: str, parts: Callable[[], Iterable[Path]]) -> Facts:
        """The fact of a unit that reads these parts; none if they were not done again.

        Args:
            what: What the parts hold: "labels of clip".
            parts: Gives the parts, in their places; called only where anything was done again.
        """
        if self.is_empty:
            return {}
        count = self.count(parts())
        return {f"{PREFIX}{what}": count} if count else {}

    def add(self, units: Iterable[tuple[Path, Facts]]) -> None:
        """Counts parts that are about to be done again; only for the holder of the run's lock.

        Args:
            units: Each part with the facts that it will have.
        """
        units = list(units)
        for part, facts in units:
            own = self._counts[storage.relative(part, self._manifests)]
            own[_key(facts)] = own.get(_key(facts), 0) + 1
        if units:
            content = json.dumps(self._counts, indent=0, sort_keys=True).encode()
            storage.write_bytes(self._manifests / _FILE, content)


def _key(facts: Facts) -> str:
    return part_file.digest(without_shard(facts))
