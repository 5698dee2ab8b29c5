"""Reads all parts, and all files whose checksums they hold, and has what is damaged done again."""

from dataclasses import dataclass

from pipeline import manifest
from pipeline.errors import DataError, StorageError
from pipeline.runner import Request, Runner
from pipeline.stage import Stage, Unit
from pipeline.workspace import locked


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

        Raises:
            StorageError: A part is damaged that others are planned from.
        """
        damaged: list[tuple[Stage, Unit]] = []
        checked = 0
        for stage in self.runner.stages(list(self.runner.config.sections)):
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
                problems = _problems(unit)
                checked += problems is not None
                if problems:
                    damaged.append((stage, unit))
                for problem in problems or ():
                    self.runner.console.line(f"{stage.name}: {unit.name}: {problem}")
        if not damaged:
            self.runner.console.line(f"{checked} units checked, no damage")
            return True
        count = f"{checked} units checked, {len(damaged)} damaged"
        if not rerun:
            self.runner.console.line(f"{count}; do them again with: maskmill verify --rerun")
            return False
        self.runner.console.line(count)
        with locked(self.runner.config.manifests):
            for _, unit in damaged:
                for path in (unit.part, *unit.unfinished):
                    path.unlink(missing_ok=True)
        self.runner.run(Request(tuple({stage.name: None for stage, _ in damaged})))
        return True


def _problems(unit: Unit) -> list[str] | None:
    """What is wrong with a unit that is done; None where it is not."""
    try:
        record = manifest.read_record(unit.part)
    except StorageError as error:
        return [f"{error.where}: {error.what}"]
    return None if record is None else manifest.damage(unit.part, record)
