"""Runs stages in order: plans each, does what is not fresh, and reports it."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from pipeline import stopping
from pipeline.config.config import Config
from pipeline.console import Console
from pipeline.engine import torchrun
from pipeline.engine.stage import Context
from pipeline.engine.staleness import AnyStage, inspect
from pipeline.engine.states import AnyUnit, StageState, State
from pipeline.engine.survey import Survey, check, refuse, rehearsed
from pipeline.errors import ConfigError
from pipeline.files import storage
from pipeline.files.run_lock import locked
from pipeline.records.manifest import remove_temporaries, update_index, update_indexes
from pipeline.records.redone import Redone
from pipeline.records.snapshot import Snapshot
from pipeline.stopping import Stopped


@dataclass(frozen=True)
class Request:
    """A request of a user.

    Attributes:
        stages: Names of stages; none means all that the config has.
        only: Whether to leave out what these stages need, even if it is not fresh.
        shards: Numbers of the only shards to do; None for all.
        force: Whether to do again what is fresh, in the stages named.
        accept_gone: Whether to go on though many images of a source are gone.
    """

    stages: tuple[str, ...] = ()
    only: bool = False
    shards: frozenset[int] | None = None
    force: bool = False
    accept_gone: bool = False


@dataclass(frozen=True)
class Runner:
    """The stages of one config.

    Attributes:
        config: The run.
        graph: All stages, in the order of the flow.
        console: The console to report to.
        strict_versions: Whether work that other versions of libraries made is stale.
    """

    config: Config
    graph: Sequence[type[AnyStage]]
    console: Console
    strict_versions: bool = False

    def run(self, request: Request) -> None:
        """Runs stages and all that they need; under torchrun, every process calls this.

        Raises:
            ConfigError: A requested stage does not exist or has no section in the config, the
                config has no section at all, or there is no such shard.
            MaskmillError: A stage cannot go on, and the user can fix the cause.
        """
        names = self._chosen(request)
        if not torchrun.is_leader():
            for stage in list(self.stages(names)):
                stage.join_leader()
            return
        with locked(self.config.manifests):
            remove_temporaries(self.config.manifests)
            stages = list(self.stages(names, accept_gone=request.accept_gone))
            for table in {stage.table.name: stage.table for stage in stages}.values():
                update_indexes(self.config.manifests, table)
            self._run_stages(stages, request)

    def preview(
        self, request: Request, *, thorough: bool = False
    ) -> Iterator[tuple[StageState, list[AnyUnit]]]:
        """Inspects every stage that `run` would come to, with the units that it would do now.

        Writes nothing but indexes of archives, which are a cache. A stage that could not run has
        faults in its state.

        Args:
            request: What would be run.
            thorough: Whether to find out too what only torch can tell.
        """
        stages = list(self.stages(self._chosen(request)))
        survey, snapshot = self._survey(stages, request), Snapshot()
        for stage in stages:
            with snapshot.active():
                state = survey.look(stage, plans_waiting=True)
            units = [] if state.faults else _picked(stage, state, request)
            if thorough and not state.faults and (units or state.waits_for):
                state = rehearsed(stage, state, units, downloads=False)
            yield state, units

    def status(self) -> Iterator[StageState]:
        """Inspects every configured stage, in order; see `preview`."""
        if self.config.sections:
            yield from (state for state, _ in self.preview(Request()))

    def stages(self, names: Collection[str], *, accept_gone: bool = False) -> Iterator[AnyStage]:
        """Builds those of the named stages that the config has, in order."""
        context = Context(self.config, self.console, accept_gone)
        for kind in self.graph:
            if kind.name in names and kind.name in self.config.sections:
                yield kind(self.config.sections[kind.name], context)

    def _run_stages(self, stages: Sequence[AnyStage], request: Request) -> None:
        """Checks all stages, then runs one after the other; what is left is checked again."""
        if request.only:
            for stage in stages:
                self._warn_of_needs(stage)
        survey, snapshot = self._survey(stages, request), Snapshot()
        with snapshot.active():
            by_name = {stage.name: stage for stage in stages}
            states = {name: survey.look(own, plans_waiting=False) for name, own in by_name.items()}
            self._warn_of_later({*states})
        refuse(states.values())
        to_do = {
            name: [] if states[name].waits_for else _picked(stage, states[name], request)
            for name, stage in by_name.items()
        }
        to_do = {name: units for name, units in to_do.items() if units or states[name].waits_for}
        refuse(
            [
                rehearsed(by_name[name], states[name], units, downloads=True)
                for name, units in to_do.items()
            ]
        )
        printed: list[str] = []
        if to_do:
            self._warn(states, printed)
        for position, stage in enumerate(stages):
            stopping.check()
            has_written = self._run_stage(stage, state := states[stage.name], request)
            survey.final.add(stage.name)
            snapshot = Snapshot() if has_written else snapshot
            with snapshot.active():
                if has_written or state.unfinished:
                    stage.summarize()
                if has_written or state.state is not State.FRESH:
                    rest = stages[position + 1 :]
                    states |= {one.name: survey.look(one, plans_waiting=False) for one in rest}
                if has_written:  # what it has made may be doubtful
                    warnings = tuple(check(stage, ()).warnings)
                    states[stage.name] = replace(state, warnings=warnings)
            refuse(states.values())
            self._warn(states, printed)
        self._warn(states, [])

    def _survey(self, stages: Sequence[AnyStage], request: Request) -> Survey:
        look = partial(self._inspect, request)
        return Survey(stages, self._needs_of, self._upstream_of, look)

    def _warn(self, states: Mapping[str, StageState], printed: list[str]) -> None:
        """Prints the warnings of stages that were not printed yet."""
        for text in (text for state in states.values() for text in state.warnings):
            if text not in printed:
                self.console.warn(text)
                printed.append(text)

    def _warn_of_later(self, chosen: Collection[str]) -> None:
        """Tells what is wrong with stages that would come after those of the command."""
        for stage in self.stages({*self.config.sections} - {*chosen}):
            upstream = self._upstream_of(stage.name)
            if not upstream.isdisjoint(chosen):
                for fault in check(stage, upstream).faults:
                    self.console.warn(f"{stage.name} could not run: {fault}")

    def _run_stage(self, stage: AnyStage, state: StageState, request: Request) -> bool:
        """Does a stage's units; returns whether anything was written."""
        for remark in state.remarks:
            self.console.note(f"{stage.name}: {remark}")
        for part in state.orphans:
            self.console.note(f"{stage.name}: drops {part}: no longer part of the run")
            if stage.keeps_superseded:
                stage.kept.keep(part, (), fingerprint="")  # a part of any facts
            storage.remove(part)
        for unit in state.kept:
            stage.kept.restore(unit.kept, unit.unit.companions)
        if state.kept:
            count = f"{len(state.kept)} unit{'s'[: len(state.kept) != 1]}"
            self.console.note(f"{stage.name}: {count} of an earlier run with these keys restored")
        has_written = bool(state.orphans or state.kept)
        if not (units := _picked(stage, state, request)):
            self.console.note(f"{stage.name}: nothing to do, {state.counts['fresh']} fresh")
            stage.join_leader()
            return has_written
        for reason in state.reasons:
            self.console.note(f"{stage.name}: {reason}")
        if len(units) < len(state.unfinished):
            self.console.note(f"{stage.name}: does {len(units)} of {len(state.units)} units")
        done_again = {each.unit.part for each in state.units if each.is_done_again}
        again = [unit for unit in units if unit.part in done_again]
        for path in (path for unit in again for path in unit.resumable):
            storage.remove(path)
        Redone(self.config.manifests).add((unit.part, unit.facts) for unit in again)
        start = time.perf_counter()
        try:
            stage.run(units)
        except Stopped as stopped:
            done = f"{stage.name}: what is done stays done"
            how = "run the same command again without --force" if request.force else stopped.how
            raise Stopped(stopped.done or done, how) from stopped
        for folder in {unit.part.parent for unit in units if unit.shard is not None}:
            update_index(folder, stage.table)
        self.console.note(f"{stage.name}: done in {time.perf_counter() - start:.1f} s")
        return True

    def _inspect(self, request: Request, stage: AnyStage, waits_for: Sequence[str]) -> StageState:
        forced = request.force and stage.name in (request.stages or self.config.sections)
        return inspect(stage, waits_for, forced=forced, strict_versions=self.strict_versions)

    def _warn_of_needs(self, stage: AnyStage) -> None:
        for needed in self.stages(self._needs_of(stage.name)):
            with Snapshot().active():
                state = inspect(needed)
            if state.state is not State.FRESH or state.kept:
                what = f"{needed.name} is not fresh; {stage.name} uses its present output"
                self.console.warn(what)

    def _chosen(self, request: Request) -> set[str]:
        """Checks the request; returns the names of the stages to run."""
        for name in request.stages:
            self._check_configured(name)
        if not self.config.sections:
            fix = f"add one of: {', '.join(kind.name for kind in self.graph)}"
            raise ConfigError("no section of a stage", where=str(self.config.path), fix=fix)
        named = request.stages or tuple(self.config.sections)
        chosen = set(named) if request.only else self._with_needs(named)
        if request.shards is None:
            return chosen
        pickers = {kind.name for kind in self.graph if kind.picks_shards}
        # A later stage would take some shards for all there are.
        after = {name for name in chosen - pickers if pickers & self._with_needs([name])}
        unfit = [name for name in request.stages if name not in pickers]
        if unfit or not chosen & pickers:
            what = f"{unfit[0] if unfit else 'the config'} has no shards to choose from"
            fix = f"name one of: {', '.join(kind.name for kind in self.graph if kind.picks_shards)}"
            raise ConfigError(what, where="--shards", fix=fix)
        return chosen - after

    def _needs_of(self, name: str) -> list[str]:
        """Names of the stages whose output a stage reads, in the order of the flow."""
        own = next(kind for kind in self.graph if kind.name == name)
        return [kind.name for kind in self.graph if kind.name in own.needs or name in kind.feeds]

    def _upstream_of(self, name: str) -> set[str]:
        """Names of the stages whose output a stage reads, directly or through others."""
        return self._with_needs([name]) - {name}

    def _with_needs(self, names: Sequence[str]) -> set[str]:
        needed: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in needed:
                needed.add(name)
                waiting.extend(self._needs_of(name))
        return needed

    def _check_configured(self, name: str) -> None:
        known = [kind.name for kind in self.graph]
        if name not in known:
            fix = f"use one of: {', '.join(known)}"
            raise ConfigError(f"no such stage: {name!r}", where="maskmill run", fix=fix)
        if name not in self.config.sections:
            what = f"the config has no section `{name}`"
            raise ConfigError(what, where=str(self.config.path), fix=f"add `{name}:` to it")


def _picked(stage: AnyStage, state: StageState, request: Request) -> list[AnyUnit]:
    """The units to do: all that are not fresh, or the requested shards among them."""
    if request.shards is None or not stage.picks_shards:
        return state.unfinished
    known = {unit.unit.shard for unit in state.units}
    if stage.name in request.stages and (unknown := sorted(request.shards - known)):
        what = f"{stage.name} has no shard {unknown[0]}"
        numbers = sorted(number for number in known if number is not None)
        fix = f"use numbers of {numbers[0]} to {numbers[-1]}" if numbers else "add images"
        raise ConfigError(what, where="--shards", fix=fix)
    return [unit for unit in state.unfinished if unit.shard in request.shards]
