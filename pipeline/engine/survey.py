"""Looks ahead: checks the stages of a command, and inspects those whose input is final."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from pipeline.engine.findings import Findings
from pipeline.engine.staleness import AnyStage
from pipeline.engine.states import AnyUnit, StageState, State
from pipeline.errors import DataError, MaskmillError, StorageError, together


@dataclass
class Survey:
    """The stages of a command, checked and planned ahead. To be used inside a snapshot.

    Attributes:
        stages: The stages of the command, in order.
        needs_of: The names of the stages that one reads.
        upstream_of: The same, and those that these read, and so on.
        inspect: Plans a stage, given those that it waits for; see `staleness.inspect`.
        final: Names of the stages whose output will not change any more.
    """

    stages: Sequence[AnyStage]
    needs_of: Callable[[str], Collection[str]]
    upstream_of: Callable[[str], Collection[str]]
    inspect: Callable[[AnyStage, Sequence[str]], StageState]
    final: set[str] = field(default_factory=set)

    def look(self, stage: AnyStage, *, plans_waiting: bool) -> StageState:
        """Checks a stage, and inspects it; if something is wrong only to show what is done.

        Args:
            stage: One of the command; those before it were looked at, or have run.
            plans_waiting: Whether to plan it even if it waits for others, as far as that goes.

        Returns:
            Its state with faults and warnings; without units if it was not planned.
        """
        unfinished = {other.name for other in self.stages} - self.final
        waits_for = tuple(name for name in self.needs_of(stage.name) if name in unfinished)
        findings = check(stage, unfinished.intersection(self.upstream_of(stage.name)))
        state = StageState(stage.name, (), waits_for)
        if not findings.faults and (plans_waiting or not waits_for):
            try:
                if not plans_waiting:  # it is about to run
                    stage.prepare()
                state = self.inspect(stage, waits_for)
            except MaskmillError as error:
                for fault in (error, *error.others):
                    # While it waits for others, its input may not exist yet.
                    if not (waits_for and isinstance(fault, DataError | StorageError)):
                        findings.add(fault)
                state = replace(state, is_planned=not findings.faults)
        elif findings.faults:
            state = self._look_at_faulty(stage, state) if plans_waiting else state
        if not findings.faults and state.state is State.FRESH:
            self.final.add(stage.name)
        return _with(state, findings)

    def _look_at_faulty(self, stage: AnyStage, state: StageState) -> StageState:
        """The state of a stage that could not run: what is done already, if it can be planned."""
        try:
            return self.inspect(stage, state.waits_for)
        except Exception:  # a plan may fail in any way after a check that found faults
            return replace(state, is_planned=False)


def check(stage: AnyStage, pending: Collection[str]) -> Findings:
    """The faults and warnings of a stage's check; see `Stage.check`."""
    findings = Findings()
    with findings.collecting():
        stage.check(findings, pending)
    return findings


def rehearsed(
    stage: AnyStage, state: StageState, units: Sequence[AnyUnit], *, downloads: bool
) -> StageState:
    """The state of a stage with what its rehearsal finds too; see `Stage.rehearse`."""
    findings = Findings(warnings=[*state.warnings])
    with findings.collecting():
        stage.rehearse(findings, None if state.waits_for else units, downloads=downloads)
    return _with(state, findings)


def refuse(states: Collection[StageState]) -> None:
    """Raises everything that is wrong with stages, if anything is.

    Raises:
        MaskmillError: The fault, or all of them together.
    """
    found = Findings()
    for fault in (fault for state in states for fault in state.faults):
        found.add(fault)
    if found.faults:
        raise together(found.faults)


def _with(state: StageState, findings: Findings) -> StageState:
    return replace(state, faults=findings.faults, warnings=tuple(findings.warnings))
