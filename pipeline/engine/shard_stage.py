"""The base class of stages whose units are shards of images, done on the cluster."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from pipeline.engine.stage import K, Stage, Unit
from pipeline.engine.staleness import count_image_changes
from pipeline.records.sharded_table import ShardedTable

T = TypeVar("T")
R = TypeVar("R", bound=Sequence[Any])


class ShardStage(Stage[K], Generic[K, T, R]):
    """A stage that labels or otherwise reads images shard by shard.

    A shard travels to a worker as a task (`task.py` of the stage, which imports no torch) and comes
    back as manifest rows. The function that a worker runs lies in `work.py`, imported when work
    begins. Only this process commits parts.
    """

    picks_shards = True
    keeps_superseded = True

    @property
    @abstractmethod
    def images(self) -> ShardedTable:
        """All images of the stage's roles, by shard."""

    @abstractmethod
    def task(self, unit: Unit[K]) -> T:
        """Everything that a worker needs for a shard."""

    @abstractmethod
    def commit_rows(self, unit: Unit[K], rows: R) -> None:
        """Commits a shard by the rows that came back."""

    def image_changes(self, unit: Unit[K]) -> dict[str, int]:
        """See `Stage.image_changes`."""
        if unit.shard is None:
            return {}
        return count_image_changes(unit, self.table, self.images)

    def run_units(self, units: Sequence[Unit[K]], work: Callable[[T], R]) -> None:
        """Runs a function over these shards on the cluster, and commits each.

        Args:
            units: Shards.
            work: Runs on a worker; picklable.
        """
        from pipeline.engine.run_shards import ShardWork, run_shards

        def task(unit: Unit[K]) -> T:
            self.clear(unit)
            return self.task(unit)

        shards = [
            ShardWork(unit, self.images[unit.shard].num_rows, partial(task, unit)) for unit in units
        ]
        if shards:
            run_shards(self.name, shards, work, self.commit_rows, self.context)
