"""Runs stages in order: plans each, does what is not fresh, and reports it."""

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from pipeline import stopping
from pipeline.config.config import Config
from pipeline.console import Console
from pipeline.engine import torchrun
from pipeline.engine.stage import Context
from pipeline.engine.staleness import AnyStage, inspect
from pipeline.engine.states import AnyUnit, StageState, State
from pipeline.errors import ConfigError, DataError, StorageError
from pipeline.files.run_lock import locked
from pipeline.records.manifest import remove_temporaries, update_index
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
            snapshot = Snapshot()
            # All are built first: a contradiction between two sections shows before any work.
            for stage in list(self.stages(names, accept_gone=request.accept_gone)):
                stopping.check()
                if request.only:
                    self._warn_of_needs(stage)
                with snapshot.active():
                    stage.prepare()
                    state = self._inspect(stage, request)
                if self._run_stage(stage, state, request):
                    snapshot = Snapshot()  # manifests have changed
                with snapshot.active():
                    stage.summarize()

    def preview(self, request: Request) -> Iterator[tuple[StageState, list[AnyUnit]]]:
        """Inspects every stage that `run` would come to, with the units that it would do now.

        Writes nothing but indexes of archives, which are a cache.
        """
        fresh: dict[str, bool] = {}
        snapshot = Snapshot()
        for stage in self.stages(self._chosen(request)):
            waits_for = [name for name in self._needs_of(stage.name) if not fresh.get(name, True)]
            try:
                with snapshot.active():
                    state = self._inspect(stage, request, waits_for)
            except (DataError, StorageError):
                if not waits_for:
                    raise
                state = StageState(stage.name, (), tuple(waits_for))  # its input does not exist yet
            fresh[stage.name] = state.state is State.FRESH
            yield state, _picked(stage, state, request)

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

    def _run_stage(self, stage: AnyStage, state: StageState, request: Request) -> bool:
        """Does a stage's units; returns whether anything was written."""
        for remark in state.remarks:
            self.console.note(f"{stage.name}: {remark}")
        for part in state.orphans:
            self.console.note(f"{stage.name}: drops {part}: no longer part of the run")
            if stage.keeps_superseded:
                stage.kept.keep(part, (), fingerprint="")  # a part of any facts
            part.unlink(missing_ok=True)
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
        doing = {unit.part for unit in units}
        again = {each.unit.part for each in state.units if each.is_done_again} & doing
        for own in units:
            if request.force or own.part in again:
                for path in own.resumable:
                    path.unlink(missing_ok=True)
        Redone(self.config.manifests).add(sorted(again))
        start = time.perf_counter()
        try:
            stage.run(units)
        except Stopped as stopped:
            done = f"{stage.name}: what is done stays done"
            raise Stopped(stopped.done or done) from stopped
        for folder in {unit.part.parent for unit in units if unit.shard is not None}:
            update_index(folder, stage.table)
        self.console.note(f"{stage.name}: done in {time.perf_counter() - start:.1f} s")
        return True

    def _inspect(
        self, stage: AnyStage, request: Request, waits_for: Sequence[str] = ()
    ) -> StageState:
        forced, is_strict = self._is_forced(stage, request), self.strict_versions
        return inspect(stage, waits_for, forced=forced, strict_versions=is_strict)

    def _is_forced(self, stage: AnyStage, request: Request) -> bool:
        return request.force and stage.name in (request.stages or self.config.sections)

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
