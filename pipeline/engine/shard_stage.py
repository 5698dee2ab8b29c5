"""The base class of stages whose units are shards of images, done on the cluster."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pipeline.config.config_section import Section
from pipeline.engine.held_images import Drop, HeldImages
from pipeline.engine.stage import Context, K, Stage, Unit
from pipeline.engine.staleness import count_image_changes
from pipeline.errors import StorageError
from pipeline.files.checksum import checksum_of_bytes
from pipeline.records import manifest, part_file, tables
from pipeline.records.part_file import IMAGES_FACT, Record
from pipeline.records.sharded_table import ShardedTable

if TYPE_CHECKING:
    from pipeline.engine.run_shards import ShardResult

T = TypeVar("T")
Row = TypeVar("Row", bound=Mapping[str, Any])


class ShardStage(Stage[K], Generic[K, T, Row]):
    """A stage that labels or otherwise reads images shard by shard.

    A shard travels to a worker as a task (`task.py` of the stage, which imports no torch) and comes
    back as manifest rows. The function that a worker runs lies in `work.py`, imported when work
    begins. Only this process commits parts.
    """

    picks_shards = True
    keeps_superseded = True

    def __init__(self, section: Section, context: Context) -> None:
        super().__init__(section, context)
        self._held_by_folder: dict[Path, HeldImages] = {}
        self._uncovered: dict[Path, set[int]] = {}

    @property
    @abstractmethod
    def images(self) -> ShardedTable:
        """All images of the stage's roles, by shard."""

    @property
    @abstractmethod
    def folders(self) -> Mapping[Path, Sequence[str]]:
        """Folders of its parts, each with the columns of images whose digest is `IMAGES_FACT`."""

    @abstractmethod
    def task(self, unit: Unit[K]) -> T:
        """Everything that a worker needs for a shard."""

    @abstractmethod
    def commit_rows(self, unit: Unit[K], rows: list[Row]) -> None:
        """Commits a shard by the rows that came back."""

    def image_changes(self, unit: Unit[K]) -> dict[str, int]:
        """See `Stage.image_changes`."""
        if unit.shard is None:
            return {}
        return count_image_changes(unit, self.table, self.images)

    def covers(self, unit: Unit[K], record: Record) -> bool:
        """See `Stage.covers`: the part holds these images as they are, and some that are gone."""
        images = unit.facts.get(IMAGES_FACT)
        if unit.shard is None or {**record.facts, IMAGES_FACT: images} != unit.facts:
            return False
        folder = unit.part.parent
        if folder not in self._uncovered:
            self._uncovered[folder] = self._held(folder).uncovered(self.images)
        is_same = self._held(folder).digests.get(unit.shard) == record.facts.get(IMAGES_FACT)
        return is_same and unit.shard not in self._uncovered[folder]

    def orphans(self) -> list[Path]:
        """Parts of no unit that hold no label of an image that the run knows, listed or gone."""
        planned = {part_file.part_name(shard) for shard in self.images.shards}
        found: list[Path] = []
        for folder in self.folders:
            if unplanned := [name for name in manifest.part_names(folder) if name not in planned]:
                held = {part_file.part_name(shard) for shard in self._held(folder).shards}
                found += [folder / name for name in unplanned if name not in held]
        return found

    def gone(self) -> list[Drop]:
        """See `Stage.gone`: the labels of other images in a part stay fresh."""
        found = []
        for folder in self.folders:
            held, records = self._held(folder), manifest.read_records(folder)
            for shard, (rows, digest) in held.gone().items():
                part = folder / part_file.part_name(shard)
                if part.name not in records:  # its record is damaged
                    continue
                facts = records[part.name].facts
                if facts.get(IMAGES_FACT) == held.digests[shard]:  # else it is stale anyway
                    facts = {**facts, IMAGES_FACT: digest}
                found.append(Drop(part, self.table, rows, facts))
        return found

    def _held(self, folder: Path) -> HeldImages:
        if folder not in self._held_by_folder:
            images = self.context.config.manifests / tables.IMAGES.name
            columns, size = self.folders[folder], self.images.shard_size
            self._held_by_folder[folder] = HeldImages(folder, self.table, images, columns, size)
        return self._held_by_folder[folder]

    def run_units(self, units: Sequence[Unit[K]], work: Callable[[T], ShardResult[Row]]) -> None:
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
            run_shards(self.name, shards, work, self._commit_result, self.context)

    def _commit_result(self, unit: Unit[K], result: ShardResult[Row]) -> None:
        """Commits what a worker did, if it is what lies there.

        Raises:
            StorageError: The rows are not those of the shard's images, or a file is not the one
                that the worker wrote.
        """
        fix = "run again; make sure that no other command and no old worker writes there"
        asked = self.images[unit.shard].select(["row", "image_id"]).to_pylist()
        if [{"row": row["row"], "image_id": row["image_id"]} for row in result.rows] != asked:
            what = "the worker returned rows of other images than it was given"
            raise StorageError(what, where=f"{self.name}: {unit.name}", fix=fix)
        for path in unit.outputs:
            try:
                is_same = checksum_of_bytes(path) == result.files.get(path)
            except FileNotFoundError:
                is_same = False
            if not is_same:
                what = "not the labels that the worker says it wrote"
                raise StorageError(what, where=str(path), fix=fix)
        self.commit_rows(unit, result.rows)
