"""The states of stages as lines of text, and as plain values for JSON."""

from collections.abc import Iterator, Sequence

from pipeline.engine.states import AnyUnit, StageState

_UNITS_TOLD = 20


def status_lines(state: StageState) -> Iterator[str]:
    """Yields why a stage is not fresh, its remarks, and what its results may suffer from."""
    for text in (*state.reasons, *state.remarks, *_warnings(state)):
        yield f"{state.name}: {text}"


def plan_lines(state: StageState, units: Sequence[AnyUnit]) -> Iterator[str]:
    """Yields what a run would do with a stage.

    Args:
        state: The stage's state.
        units: Its units that the run would do.
    """
    for text in (*state.remarks, *_warnings(state)):
        yield f"{state.name}: {text}"
    if state.faults:
        yield f"{state.name}: could not run"
        return
    if not units and not state.waits_for:
        yield f"{state.name}: nothing to do, {state.counts['fresh']} fresh"
        return
    for reason in state.reasons:
        yield f"{state.name}: {reason}"
    if units:
        names = ", ".join(unit.name for unit in units[:_UNITS_TOLD])
        more = f" and {len(units) - _UNITS_TOLD} more" if units[_UNITS_TOLD:] else ""
        yield f"{state.name}: would do {names}{more}"


def as_dict(state: StageState) -> dict[str, object]:
    """The state as plain values."""
    return {
        "name": state.name,
        "state": state.state.value,
        "shards": state.counts,
        "reasons": state.reasons,
        "remarks": list(state.remarks),
        "faults": [str(fault) for fault in state.faults],
        "warnings": list(state.warnings),
        "causes": [
            {
                "kind": cause.reason.kind.value,
                "reason": cause.what,
                "images": cause.reason.images,
                "units": [unit.name for unit in cause.units],
                "shards": cause.shards,
            }
            for cause in state.causes
        ],
    }


def _warnings(state: StageState) -> list[str]:
    return [f"warning: {text}" for text in state.warnings]
