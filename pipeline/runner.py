"""Runs stages in order: plans each, does what is not fresh, and says so."""

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from pipeline.config import Config
from pipeline.console import Console
from pipeline.errors import ConfigError, DataError
from pipeline.manifest import remove_temporaries
from pipeline.stage import Context, Stage
from pipeline.staleness import StageState, State, inspect
from pipeline.workspace import locked


@dataclass(frozen=True)
class Runner:
    """The stages of one config.

    Attributes:
        config: The run.
        graph: All stages there are, in the order of the flow.
        console: Where to tell about the work.
    """

    config: Config
    graph: Sequence[type[Stage]]
    console: Console

    def run(self, requested: Sequence[str]) -> None:
        """Does stages with all they need; without names, all that the config has.

        Raises:
            ConfigError: A requested stage does not exist or has no section in the config, or the
                config has no section at all.
            MaskmillError: Whatever a stage cannot do and the user can mend.
        """
        for name in requested:
            self._check_configured(name)
        if not self.config.sections:
            fix = f"add one of: {', '.join(kind.name for kind in self.graph)}"
            raise ConfigError("no section of a stage", where=str(self.config.path), fix=fix)
        needed = self._with_needs(requested or list(self.config.sections))
        with locked(self.config.manifests):
            remove_temporaries(self.config.manifests)
            # All are built first: where two sections disagree, that shows before any work.
            for stage in list(self._stages(needed)):
                self._run_stage(stage)

    def status(self) -> Iterator[StageState]:
        """The state of every configured stage, in order; writes nothing."""
        fresh: dict[str, bool] = {}
        for stage in self._stages(list(self.config.sections)):
            waits_for = [name for name in stage.needs if not fresh.get(name, True)]
            try:
                state = inspect(stage, waits_for)
            except DataError:
                if not waits_for:
                    raise
                state = StageState(stage.name, (), tuple(waits_for))  # its input is not there yet
            fresh[stage.name] = state.state is State.FRESH
            yield state

    def _run_stage(self, stage: Stage) -> None:
        state = inspect(stage)
        if not (units := state.unfinished):
            self.console.note(f"{stage.name}: nothing to do, {len(state.units)} fresh")
        else:
            for reason in state.reasons:
                self.console.note(f"{stage.name}: {reason}")
            start = time.perf_counter()
            stage.run(units)
            self.console.note(f"{stage.name}: done in {time.perf_counter() - start:.1f} s")
        stage.summarize()

    def _stages(self, names: Collection[str]) -> Iterator[Stage]:
        context = Context(self.config, self.console)
        for kind in self.graph:
            if kind.name in names and kind.name in self.config.sections:
                yield kind(self.config.sections[kind.name], context)

    def _with_needs(self, names: Sequence[str]) -> set[str]:
        kinds = {kind.name: kind for kind in self.graph}
        needed: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name in kinds and name not in needed:
                needed.add(name)
                waiting.extend(kinds[name].needs)
        return needed

    def _check_configured(self, name: str) -> None:
        known = [kind.name for kind in self.graph]
        if name not in known:
            fix = f"use one of: {', '.join(known)}"
            raise ConfigError(f"no such stage: {name!r}", where="maskmill run", fix=fix)
        if name not in self.config.sections:
            what = f"the config has no section `{name}`"
            raise ConfigError(what, where=str(self.config.path), fix=f"add `{name}:` to it")
