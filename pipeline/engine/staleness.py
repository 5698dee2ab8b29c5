"""Which units are fresh, stale or missing, and why: recorded facts against present ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from pipeline.engine.fact_diff import fact_changes
from pipeline.engine.other_versions import strict, version_changes, version_remark
from pipeline.engine.stage import Stage
from pipeline.engine.states import AnyUnit, Reason, ReasonKind, StageState, State, UnitState
from pipeline.errors import StorageError
from pipeline.files import file_stamps, storage
from pipeline.records import manifest, part_file, snapshot
from pipeline.records.part_file import IMAGES_FACT, Record
from pipeline.records.sharded_table import ShardedTable
from pipeline.records.tables import Table

AnyStage = Stage[Any]


def inspect(
    stage: AnyStage,
    waits_for: Sequence[str] = (),
    *,
    forced: bool = False,
    strict_versions: bool = False,
) -> StageState:
    """Plans a stage and compares every unit with its part.

    To be called inside a snapshot, in which kept parts of its units are shown from then on.

    Args:
        stage: The stage.
        waits_for: Earlier stages that are not fresh.
        forced: Whether units that are fresh count as stale.
        strict_versions: Whether units that other versions made count as stale.
    """
    found = _inspect_units(stage)
    orphans = stage.orphans()
    if strict_versions:
        found = [strict(unit) for unit in found]
    if forced:
        found = [_forced(unit) for unit in found]
    if (active := snapshot.active()) is not None:
        active.show({part: kept for unit in found for part, kept in unit.kept.items()})
    remarks = (*stage.remarks(), *version_remark(found))
    return StageState(stage.name, tuple(found), tuple(waits_for), tuple(orphans), remarks)


def _inspect_units(stage: AnyStage) -> list[UnitState]:
    plan = stage.plan()
    records: dict[Path, Mapping[str, Record]] = {}
    found = []
    for unit in plan:
        folder = unit.part.parent
        if folder not in records:
            records[folder] = manifest.read_records(folder)
        found.append(_inspect_unit(stage, unit, records[folder].get(unit.part.name)))
    fresh = (unit.unit for unit in found if unit.state is State.FRESH and not unit.kept)
    gone = file_stamps.missing(path for unit in fresh for path in (*unit.outputs, *unit.companions))
    found = [_with_outputs_gone(unit, gone) for unit in found] if gone else found
    if any(unit.state is not State.MISSING for unit in found):
        found = [_with_new_images(stage, unit) for unit in found]
    return found


def count_changes(before: Mapping[int, object], now: Mapping[int, object]) -> dict[str, int]:
    """Counts the images that are changed, new and gone, given a value for each by row."""
    counts = {
        "changed": sum(now[row] != before[row] for row in before.keys() & now.keys()),
        "new": len(now.keys() - before.keys()),
        "gone": len(before.keys() - now.keys()),
    }
    return {what: count for what, count in counts.items() if count}


def count_image_changes(unit: AnyUnit, table: Table, images: ShardedTable) -> dict[str, int]:
    """Counts a shard's images that are changed, new and gone since its part was written.

    Args:
        unit: The shard; if it has no part, nothing has changed.
        table: The kind of its part, with the columns row and image_id.
        images: All images as they are now, rows of the images manifest.
    """
    if not storage.exists(unit.part):
        return {}
    rows = manifest.read_part(unit.part, table, ["row", "image_id"]).to_pylist()
    present = images.rows(unit.shard)
    before, now = ({row["row"]: row["image_id"] for row in side} for side in (rows, present))
    return count_changes(before, now)


def _inspect_unit(stage: AnyStage, unit: AnyUnit, record: Record | None) -> UnitState:
    try:
        record = record or part_file.read_record(unit.part)
    except StorageError as error:
        reason = Reason(ReasonKind.PART_DAMAGED, f"{error.where}: {error.what}")
        return UnitState(unit, State.STALE, (reason,))
    if record is not None and (_holds(record, unit) or stage.covers(unit, record)):
        if record.failed:
            reason = Reason(ReasonKind.IMAGES_FAILED, "could not be read", record.failed)
            return UnitState(unit, State.STALE, (reason,))
        return UnitState(unit, State.FRESH, version_changes=version_changes(unit, record))
    if kept := _kept(stage, unit):
        former = part_file.read_record(kept.get(unit.part, unit.part))
        changes = () if former is None else version_changes(unit, former)
        return UnitState(unit, State.FRESH, kept=kept, version_changes=changes)
    if record is None:
        return UnitState(unit, State.MISSING, (Reason(ReasonKind.NOT_DONE, "not done yet"),))
    reasons: list[Reason] = []
    for change in fact_changes(record.facts, unit.facts):
        if change.key == IMAGES_FACT and (counts := _image_changes(stage, unit)):
            reasons += _image_reasons(counts)
        else:
            reasons.append(Reason(ReasonKind.FACT_CHANGED, change.text))
    return UnitState(unit, State.STALE, tuple(reasons))


def _holds(record: Record, unit: AnyUnit) -> bool:
    return unit.facts == record.facts or part_file.as_recorded(unit.facts) == record.facts


def _kept(stage: AnyStage, unit: AnyUnit) -> Mapping[Path, Path]:
    """The kept parts of exactly these facts, if their outputs are still there."""
    if not stage.keeps_superseded:
        return {}
    found = stage.kept.find(unit.part, unit.companions, unit.fingerprint)
    return {} if found and file_stamps.missing(unit.outputs) else found


def _with_outputs_gone(found: UnitState, gone: Set[Path]) -> UnitState:
    outputs = (*found.unit.outputs, *found.unit.companions)
    first = next((output for output in outputs if output in gone), None)
    if found.state is not State.FRESH or found.kept or first is None:
        return found
    reason = Reason(ReasonKind.OUTPUT_GONE, f"{first} is gone")
    return UnitState(found.unit, State.MISSING, (reason,))


def _image_changes(stage: AnyStage, unit: AnyUnit) -> Mapping[str, int]:
    try:
        return stage.image_changes(unit)
    except StorageError:
        return {}  # the rows of the old part are damaged; it is replaced


def _image_reasons(counts: Mapping[str, int]) -> tuple[Reason, ...]:
    kind = ReasonKind.IMAGES_CHANGED
    return tuple(Reason(kind, what, count) for what, count in counts.items())


def _with_new_images(stage: AnyStage, found: UnitState) -> UnitState:
    """Explains a unit that is missing although others are done by its new images, if it has any."""
    if [reason.kind for reason in found.reasons] != [ReasonKind.NOT_DONE]:
        return found
    counts = stage.image_changes(found.unit)
    return UnitState(found.unit, found.state, _image_reasons(counts)) if counts else found


def _forced(found: UnitState) -> UnitState:
    if found.state is not State.FRESH:
        return found
    return UnitState(found.unit, State.STALE, (Reason(ReasonKind.FORCED, "forced"),))
