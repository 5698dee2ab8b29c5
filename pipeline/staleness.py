"""Which units are fresh, stale or missing, and why: recorded facts against present ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import takewhile

from pydantic import JsonValue

from pipeline.manifest import read_facts
from pipeline.section import Facts
from pipeline.stage import Stage, Unit

_REASONS_TOLD = 20


class State(StrEnum):
    """Of a unit, and of a stage."""

    FRESH = "fresh"
    STALE = "stale"
    MISSING = "missing"


@dataclass(frozen=True)
class UnitState:
    """A unit, its state, and why it is not fresh."""

    unit: Unit
    state: State
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class StageState:
    """A stage's units with their states.

    Attributes:
        name: The stage.
        units: In the order of the plan.
        waits_for: Stages before it that are not fresh, so that its own plan may still change.
    """

    name: str
    units: tuple[UnitState, ...]
    waits_for: tuple[str, ...] = ()

    @property
    def state(self) -> State:
        """Missing where nothing was done yet, fresh where nothing is to do, else stale."""
        states = {unit.state for unit in self.units}
        if states <= {State.MISSING}:
            return State.MISSING
        return State.FRESH if states == {State.FRESH} and not self.waits_for else State.STALE

    @property
    def counts(self) -> dict[str, int]:
        """Number of units by state."""
        return {state.value: sum(unit.state is state for unit in self.units) for state in State}

    @property
    def unfinished(self) -> list[Unit]:
        """The units that are not fresh."""
        return [unit.unit for unit in self.units if unit.state is not State.FRESH]

    @property
    def reasons(self) -> list[str]:
        """Why it is not fresh, one line a cause, with the units that it touches."""
        touched: dict[str, list[str]] = {}
        for unit in self.units:
            for reason in unit.reasons:
                touched.setdefault(reason, []).append(unit.unit.name)
        lines = [
            f"{reason}: {names[0] if len(names) == 1 else f'{len(names)} units'}"
            for reason, names in touched.items()
        ]
        if more := lines[_REASONS_TOLD:]:
            lines = [*lines[:_REASONS_TOLD], f"{len(more)} more reasons"]
        return lines + [f"{name} is not fresh" for name in self.waits_for]


def inspect(stage: Stage, waits_for: Sequence[str] = ()) -> StageState:
    """Plans a stage and holds every unit against its part."""
    units = tuple(_inspect_unit(unit) for unit in stage.plan())
    return StageState(stage.name, units, tuple(waits_for))


def _inspect_unit(unit: Unit) -> UnitState:
    recorded = read_facts(unit.part)
    if recorded is None:
        return UnitState(unit, State.MISSING, ("not done yet",))
    if changes := _changes(recorded, unit.facts):
        return UnitState(unit, State.STALE, changes)
    for output in unit.outputs:
        if not output.exists():
            return UnitState(unit, State.MISSING, (f"{output} is gone",))
    return UnitState(unit, State.FRESH)


def _changes(recorded: Facts, present: Facts) -> tuple[str, ...]:
    """One line a key that differs; inputs are digests, so only the change is worth telling."""
    lines = []
    for key in sorted(recorded.keys() | present.keys()):
        old, new = recorded.get(key), present.get(key)
        if old == new:
            continue
        if key.startswith("inputs."):
            lines.append(f"{key.removeprefix('inputs.')} changed")
        elif isinstance(old, dict) and isinstance(new, dict):
            lines += [f"{key}.{line}" for line in _changes(old, new)]
        else:
            lines.append(f"{key} {_shown(old, new)} -> {_shown(new, old)}")
    return tuple(lines)


def _shown(value: JsonValue, other: JsonValue) -> str:
    """A value as short text; of lists only from where they part."""
    text = "none" if value is None else str(value)
    if isinstance(value, bool):
        text = text.lower()  # as the config spells it
    if isinstance(value, list) and isinstance(other, list):
        pairs = zip(value, other, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        text = f"[..., {str(value[same:])[1:]}" if same else text
    return text if len(text) <= 60 else f"{text[:57]}..."
