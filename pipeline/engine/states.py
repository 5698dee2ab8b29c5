"""States of units and stages, and the reasons for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from pipeline.engine.stage import Unit
from pipeline.errors import MaskmillError

_REASONS_SHOWN = 20
_SHARDS_NAMED = 5

AnyUnit = Unit[Any]


class State(StrEnum):
    """State of a unit or of a stage; only that of a stage may be unknown."""

    FRESH = "fresh"
    STALE = "stale"
    MISSING = "missing"
    UNKNOWN = "unknown"


COUNTED = (State.FRESH, State.STALE, State.MISSING)
"""States of units."""


class ReasonKind(StrEnum):
    """The kinds of reasons why a unit is not fresh."""

    NOT_DONE = "not done"
    FACT_CHANGED = "fact changed"
    IMAGES_CHANGED = "images changed"
    IMAGES_FAILED = "images failed"
    PART_DAMAGED = "part damaged"
    OUTPUT_GONE = "output gone"
    FORCED = "forced"
    OTHER_VERSIONS = "other versions"


@dataclass(frozen=True)
class Reason:
    """A reason why a unit is not fresh.

    Attributes:
        kind: What kind of reason it is.
        text: The cause in words; for images only what happened to them: "changed", "new".
        images: The number of images that it concerns, where that can be counted.
    """

    kind: ReasonKind
    text: str
    images: int | None = None


@dataclass(frozen=True)
class UnitState:
    """A unit and its state.

    Attributes:
        unit: The unit.
        state: Its state.
        reasons: Why it is not fresh.
        kept: Kept parts that return to their places when the stage runs; such a unit is fresh.
        version_changes: Versions that made it and those there are now, where they differ.
    """

    unit: AnyUnit
    state: State
    reasons: tuple[Reason, ...] = ()
    kept: Mapping[Path, Path] = field(default_factory=dict)
    version_changes: tuple[str, ...] = ()

    @property
    def is_done_again(self) -> bool:
        """Whether it is done again on request, though nothing that it depends on has changed."""
        kinds = {reason.kind for reason in self.reasons}
        return bool(kinds) and kinds <= {ReasonKind.FORCED, ReasonKind.OTHER_VERSIONS}


@dataclass(frozen=True)
class Cause:
    """One reason with all units that it concerns.

    Attributes:
        reason: What the units have in common; `images` is the sum over them.
        units: The units, in the order of the plan.
    """

    reason: Reason
    units: tuple[AnyUnit, ...]

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
        waits_for: Earlier stages that are not fresh, so that its own plan may still change.
        orphans: Parts of units that no longer exist.
        remarks: What else the stage has to say; see `Stage.remarks`.
        faults: What is known to be wrong, so that the stage cannot run; see `Stage.check`.
        warnings: What probably gives other results than the user expects.
        is_planned: Whether its units are known; not if a fault keeps it from being planned.
    """

    name: str
    units: tuple[UnitState, ...]
    waits_for: tuple[str, ...] = ()
    orphans: tuple[Path, ...] = ()
    remarks: tuple[str, ...] = ()
    faults: tuple[MaskmillError, ...] = ()
    warnings: tuple[str, ...] = ()
    is_planned: bool = True

    @property
    def state(self) -> State:
        """Missing if nothing was done yet, fresh if there is nothing to do, else stale.

        Unknown if a fault keeps it from being planned.
        """
        if not self.is_planned:
            return State.UNKNOWN
        states = {unit.state for unit in self.units}
        if states <= {State.MISSING} and not self.orphans:
            return State.MISSING
        is_fresh = states <= {State.FRESH} and not self.waits_for and not self.orphans
        return State.FRESH if is_fresh else State.STALE

    @property
    def counts(self) -> dict[str, int | None]:
        """Number of units by state; None if they are not known."""
        if not self.is_planned:
            return {state.value: None for state in COUNTED}
        return {state.value: sum(unit.state is state for unit in self.units) for state in COUNTED}

    @property
    def unfinished(self) -> list[AnyUnit]:
        """The units that are not fresh."""
        return [unit.unit for unit in self.units if unit.state is not State.FRESH]

    @property
    def kept(self) -> list[UnitState]:
        """The units that are fresh by parts that were kept."""
        return [unit for unit in self.units if unit.kept]

    @property
    def causes(self) -> list[Cause]:
        """Why it is not fresh: equal reasons together, in the order of the plan."""
        units: dict[tuple[ReasonKind, str], list[AnyUnit]] = {}
        images: dict[tuple[ReasonKind, str], int | None] = {}
        for found in self.units:
            for reason in found.reasons:
                key = (reason.kind, reason.text)
                units.setdefault(key, []).append(found.unit)
                counted = images.get(key)
                total = None if reason.images is None else (counted or 0) + reason.images
                images[key] = total
        return [
            Cause(Reason(kind, text, images[kind, text]), tuple(own))
            for (kind, text), own in units.items()
        ]

    @property
    def reasons(self) -> list[str]:
        """Why it is not fresh, one line a cause, with the units that it concerns."""
        lines = [f"{cause.what}: {cause.where}" for cause in self.causes]
        if more := lines[_REASONS_SHOWN:]:
            lines = [*lines[:_REASONS_SHOWN], f"{len(more)} more reasons"]
        if self.orphans:
            lines.append(f"no longer part of the run: {len(self.orphans)} manifest parts to drop")
        return lines + [f"{name} is not fresh" for name in self.waits_for]
