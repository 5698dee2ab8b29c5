"""Which units are fresh, stale or missing, and why: recorded facts against present ones."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pipeline.engine.fact_diff import differences
from pipeline.engine.stage import Stage, Unit
from pipeline.errors import StorageError
from pipeline.files import storage
from pipeline.records.manifest import Record, read_part, read_record, read_records, unchanging
from pipeline.records.sharded_table import ShardedTable
from pipeline.records.tables import Table

_REASONS_TOLD = 20
_SHARDS_NAMED = 5
_IMAGES_CHANGED = "images changed"
"""How a difference in the fact `inputs.images` reads before the stage was asked for more."""


class State(StrEnum):
    """Of a unit, and of a stage."""

    FRESH = "fresh"
    STALE = "stale"
    MISSING = "missing"


@dataclass(frozen=True)
class Reason:
    """Why a unit is not fresh.

    Attributes:
        text: The cause; of images only what happened to them: "changed", "new".
        images: How many images it is true of, where that can be counted.
    """

    text: str
    images: int | None = None


@dataclass(frozen=True)
class UnitState:
    """A unit, its state, and why it is not fresh."""

    unit: Unit
    state: State
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True)
class Cause:
    """One reason with all that it touches.

    Attributes:
        reason: What the units have in common; `images` is the sum over them.
        units: The units, in the order of the plan.
    """

    reason: Reason
    units: tuple[Unit, ...]

    @property
    def shards(self) -> list[int]:
        """Numbers of the shards among the units, ascending."""
        return sorted({unit.shard for unit in self.units if unit.shard is not None})

    @property
    def what(self) -> str:
        """The reason in words: "3 images changed", "train.steps 300 -> 400"."""
        if self.reason.images is None:
            return self.reason.text
        return f"{self.reason.images} image{'s'[: self.reason.images != 1]} {self.reason.text}"

    @property
    def where(self) -> str:
        """The units in words: "shard 17", "shards 3, 7", "40 shards and 2 units"."""
        others = [unit.name for unit in self.units if unit.shard is None]
        texts = [others[0] if len(others) == 1 else f"{len(others)} units"] if others else []
        if len(self.units) == 1:
            texts = [self.units[0].name]
        elif len(self.shards) > _SHARDS_NAMED:
            texts = [f"{len(self.shards)} shards", *texts]
        elif self.shards:
            numbers = ", ".join(map(str, self.shards))
            texts = [f"shard{'s'[: len(self.shards) != 1]} {numbers}", *texts]
        return " and ".join(texts)


@dataclass(frozen=True)
class StageState:
    """A stage's units with their states.

    Attributes:
        name: The stage.
        units: In the order of the plan.
        waits_for: Stages before it that are not fresh, so that its own plan may still change.
        orphans: Parts of units that there are no longer.
    """

    name: str
    units: tuple[UnitState, ...]
    waits_for: tuple[str, ...] = ()
    orphans: tuple[Path, ...] = ()

    @property
    def state(self) -> State:
        """Missing where nothing was done yet, fresh where nothing is to do, else stale."""
        states = {unit.state for unit in self.units}
        if states <= {State.MISSING} and not self.orphans:
            return State.MISSING
        is_fresh = states <= {State.FRESH} and not self.waits_for and not self.orphans
        return State.FRESH if is_fresh else State.STALE

    @property
    def counts(self) -> dict[str, int]:
        """Number of units by state."""
        return {state.value: sum(unit.state is state for unit in self.units) for state in State}

    @property
    def unfinished(self) -> list[Unit]:
        """The units that are not fresh."""
        return [unit.unit for unit in self.units if unit.state is not State.FRESH]

    @property
    def causes(self) -> list[Cause]:
        """Why it is not fresh: equal reasons together, in the order of the plan."""
        touched: dict[tuple[str, bool], list[tuple[Unit, Reason]]] = {}
        for unit in self.units:
            for reason in unit.reasons:
                key = (reason.text, reason.images is None)
                touched.setdefault(key, []).append((unit.unit, reason))
        return [
            Cause(
                Reason(text, None if uncounted else sum(r.images or 0 for _, r in found)),
                tuple(unit for unit, _ in found),
            )
            for (text, uncounted), found in touched.items()
        ]

    @property
    def reasons(self) -> list[str]:
        """Why it is not fresh, one line a cause, with the units that it touches."""
        lines = [f"{cause.what}: {cause.where}" for cause in self.causes]
        if more := lines[_REASONS_TOLD:]:
            lines = [*lines[:_REASONS_TOLD], f"{len(more)} more reasons"]
        if self.orphans:
            lines.append(f"all images gone: {len(self.orphans)} manifest parts to drop")
        return lines + [f"{name} is not fresh" for name in self.waits_for]


def inspect(stage: Stage, waits_for: Sequence[str] = (), *, forced: bool = False) -> StageState:
    """Plans a stage and holds every unit against its part.

    Args:
        stage: The stage.
        waits_for: Stages before it that are not fresh.
        forced: Whether units that are fresh count as stale.
    """
    with unchanging():
        found = _inspect_units(stage)
        orphans = stage.orphans()
    if forced:
        found = [_forced(unit) for unit in found]
    return StageState(stage.name, tuple(found), tuple(waits_for), tuple(orphans))


def _inspect_units(stage: Stage) -> list[UnitState]:
    plan = stage.plan()
    records: dict[Path, Mapping[str, Record]] = {}
    found = []
    for unit in plan:
        folder = unit.part.parent
        if folder not in records:
            records[folder] = read_records(folder)
        found.append(_inspect_unit(stage, unit, records[folder].get(unit.part.name)))
    done = (unit.unit for unit in found if unit.state is State.FRESH)
    gone = storage.missing(output for unit in done for output in unit.outputs)
    found = [_with_outputs_gone(unit, gone) for unit in found] if gone else found
    if any(unit.state is not State.MISSING for unit in found):
        found = [_with_new_images(stage, unit) for unit in found]
    return found


def count_changes(before: Mapping[int, object], now: Mapping[int, object]) -> dict[str, int]:
    """How many images are changed, new and gone, of what stands for each, by row."""
    counts = {
        "changed": sum(now[row] != before[row] for row in before.keys() & now.keys()),
        "new": len(now.keys() - before.keys()),
        "gone": len(before.keys() - now.keys()),
    }
    return {what: count for what, count in counts.items() if count}


def count_image_changes(unit: Unit, table: Table, images: ShardedTable) -> dict[str, int]:
    """How many of a shard's images are changed, new and gone since its part was written.

    Args:
        unit: The shard; without its part, which has columns row and image_id, nothing has changed.
        table: What that is a part of.
        images: All images as they are now, rows of the images manifest.
    """
    if not unit.part.exists():
        return {}
    rows = read_part(unit.part, table, ["row", "image_id"]).to_pylist()
    present = images.rows(unit.shard)
    before, now = ({row["row"]: row["image_id"] for row in side} for side in (rows, present))
    return count_changes(before, now)


def _inspect_unit(stage: Stage, unit: Unit, record: Record | None) -> UnitState:
    try:
        record = record or read_record(unit.part)
    except StorageError as error:
        return UnitState(unit, State.STALE, (Reason(f"{error.where}: {error.what}"),))
    if record is None:
        return UnitState(unit, State.MISSING, (Reason("not done yet"),))
    if changes := differences(record.facts, unit.facts):
        reasons: list[Reason] = []
        for change in changes:
            if change == _IMAGES_CHANGED and (counts := _image_changes(stage, unit)):
                reasons += [Reason(what, count) for what, count in counts.items()]
            else:
                reasons.append(Reason(change))
        return UnitState(unit, State.STALE, tuple(reasons))
    if record.failed:
        return UnitState(unit, State.STALE, (Reason("could not be read", record.failed),))
    return UnitState(unit, State.FRESH)


def _with_outputs_gone(found: UnitState, gone: Set[Path]) -> UnitState:
    first = next((output for output in found.unit.outputs if output in gone), None)
    if found.state is not State.FRESH or first is None:
        return found
    return UnitState(found.unit, State.MISSING, (Reason(f"{first} is gone"),))


def _image_changes(stage: Stage, unit: Unit) -> Mapping[str, int]:
    try:
        return stage.image_changes(unit)
    except StorageError:
        return {}  # the rows of the old part are damaged; it is replaced


def _with_new_images(stage: Stage, found: UnitState) -> UnitState:
    """Says of what is missing beside finished units which images make it so, where that is so."""
    if found.reasons != (Reason("not done yet"),):
        return found
    if not (counts := stage.image_changes(found.unit)):
        return found
    reasons = tuple(Reason(what, count) for what, count in counts.items())
    return UnitState(found.unit, found.state, reasons)


def _forced(found: UnitState) -> UnitState:
    if found.state is not State.FRESH:
        return found
    return UnitState(found.unit, State.STALE, (Reason("forced"),))
