"""Finished units that other versions of libraries or models made than there are now."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.engine.states import AnyUnit, Reason, ReasonKind, State, UnitState
from pipeline.records.part_file import Record


def version_changes(unit: AnyUnit, record: Record) -> tuple[str, ...]:
    """The versions that differ, "torch 2.4.0 -> 2.5.1"; those that were not recorded do not."""
    return tuple(
        f"{name} {record.versions[name]} -> {now}"
        for name, now in sorted(unit.versions.items())
        if record.versions.get(name, now) != now
    )


def strict(found: UnitState) -> UnitState:
    """A fresh unit that other versions made, as a stale one."""
    if found.state is not State.FRESH or not found.version_changes:
        return found
    reasons = tuple(Reason(ReasonKind.OTHER_VERSIONS, text) for text in found.version_changes)
    return UnitState(found.unit, State.STALE, reasons)


def version_remark(units: Iterable[UnitState]) -> list[str]:
    """One line if other versions made some of the fresh units, else none."""
    found = [unit for unit in units if unit.state is State.FRESH and unit.version_changes]
    if not found:
        return []
    changes = ", ".join(dict.fromkeys(text for unit in found for text in unit.version_changes))
    count = f"{len(found)} unit{'s'[: len(found) != 1]}"
    fix = "they stay fresh, `--strict-versions` does them again"
    return [f"{count} made by other versions ({changes}); {fix}"]
