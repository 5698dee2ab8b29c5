"""Reads all parts, and all files whose checksums they hold, and has what is damaged done again."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.engine.runner import Request, Runner
from pipeline.engine.stage import Stage
from pipeline.errors import DataError, StorageError
from pipeline.files import locations, storage
from pipeline.files.run_lock import locked
from pipeline.records import manifest


@dataclass(frozen=True)
class Verifier:
    """Looks for damage in a run.

    Attributes:
        runner: The run's stages.
    """

    runner: Runner

    def verify(self, *, rerun: bool) -> bool:
        """Tells what is damaged, and with `rerun` does it again.

        Returns:
            Whether all is well, in the end.
        """
        try:
            damaged, checked = self._look()
        except manifest.DamagedPartError as error:  # one that others are planned from
            folder = locations.location(error.where).parent
            place = storage.relative(folder, self.runner.config.manifests).split("/")[0]
            stage = next(stage for stage in self._stages() if stage.table.name == place)
            parts = [part for part in sorted(folder.glob("part-*.parquet")) if _problems(part)]
            for part in parts:
                self.runner.console.line(f"{stage.name}: {part}: {error.what}")
            count = f"{len(parts)} parts damaged that others are planned from"
            damaged = [(stage, parts)]
        else:
            if not damaged:
                self.runner.console.line(f"{checked} units checked, no damage")
                return True
            count = f"{checked} units checked, {len(damaged)} damaged"
        if not rerun:
            self.runner.console.line(f"{count}; do them again with: maskmill verify --rerun")
            return False
        self.runner.console.line(count)
        with locked(self.runner.config.manifests):
            for path in (path for _, paths in damaged for path in paths):
                path.unlink(missing_ok=True)
        self.runner.run(Request(tuple({stage.name: None for stage, _ in damaged})))
        return self.verify(rerun=True)

    def _stages(self) -> list[Stage]:
        return list(self.runner.stages(list(self.runner.config.sections)))

    def _look(self) -> tuple[list[tuple[Stage, list[Path]]], int]:
        """What is damaged, as files to delete, and how many units were looked at.

        Raises:
            DamagedPartError: A part is damaged that others are planned from, and nothing else is.
        """
        damaged: list[tuple[Stage, list[Path]]] = []
        checked = 0
        for stage in self._stages():
            try:
                plan = stage.plan()
            except StorageError:
                if not damaged:
                    raise
                break  # what it is planned from is damaged; a rerun plans it anew
            except DataError as error:  # its input is not there, so nothing was made from it
                self.runner.console.note(f"{stage.name}: not looked at: {error}")
                break
            for unit in plan:
                problems = _problems(unit.part)
                checked += problems is not None
                if problems:
                    damaged.append((stage, [unit.part, *unit.unfinished]))
                for problem in problems or ():
                    self.runner.console.line(f"{stage.name}: {unit.name}: {problem}")
        return damaged, checked


def _problems(part: Path) -> list[str] | None:
    """What is wrong with a part or the files that its rows describe; None without a part."""
    try:
        record = manifest.read_record(part)
    except StorageError as error:
        return [f"{error.where}: {error.what}"]
    return None if record is None else manifest.damage(part, record)
