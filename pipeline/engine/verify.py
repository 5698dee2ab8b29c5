"""Checks all parts and all files whose checksums they hold, and does damaged units again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import stopping
from pipeline.engine.runner import Request, Runner
from pipeline.engine.staleness import AnyStage
from pipeline.engine.states import AnyUnit
from pipeline.errors import DataError, StorageError
from pipeline.files import locations, storage
from pipeline.files.checksum import archive_is_whole
from pipeline.files.run_lock import locked
from pipeline.records import part_file
from pipeline.records.redone import Redone
from pipeline.records.snapshot import Snapshot


@dataclass
class Damage:
    """The damage of a run.

    Attributes:
        checked: Number of units that were checked.
        units: Stages with files to discard, after which the stage does a damaged unit again.
        misread: Damaged units whose output can be read: what was made from it may be wrong.
        shared: Stages with damage that they repair without doing units again.
        altered: For each unit whose input files are not those of its rows, the name of its stage.
        unreachable: Number of input files that cannot be read now, which is no damage.
    """

    checked: int = 0
    units: list[tuple[AnyStage, list[Path]]] = field(default_factory=list)
    misread: list[AnyUnit] = field(default_factory=list)
    shared: list[AnyStage] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    unreachable: int = 0

    @property
    def again(self) -> set[str]:
        """Stages that read altered files again; none while files that are whole would fail."""
        return set() if self.unreachable else {*self.altered}


@dataclass(frozen=True)
class Verifier:
    """Checks a run for damage.

    Attributes:
        runner: The run's stages.
    """

    runner: Runner

    def verify(self, *, rerun: bool) -> bool:
        """Reports what is damaged, and with `rerun` does it again.

        Returns:
            Whether there is no damage, in the end.
        """
        try:
            found = self._check()
        except part_file.DamagedPartError as error:  # a part that others are planned from
            folder = locations.location(error.where).parent
            place = storage.relative(folder, self.runner.config.manifests).split("/")[0]
            stage = next(stage for stage in self._stages() if stage.table.name == place)
            parts = [
                part for part in storage.glob(folder, "part-*.parquet") if _problems(part, folder)
            ]
            for part in parts:
                self.runner.console.line(f"{stage.name}: {part}: {error.what}")
            damaged = f"{len(parts)} damaged part{'s'[: len(parts) != 1]}"
            count = f"{damaged} that other units depend on"
            found = Damage(units=[(stage, parts)])
        else:
            damage = len(found.units) + len(found.altered) + len(found.shared)
            is_whole = not damage
            count = (
                f"{found.checked} units checked, {'no damage' if is_whole else f'{damage} damaged'}"
            )
            if found.unreachable:
                files = f"{found.unreachable} input file{'s'[: found.unreachable != 1]}"
                count = f"{count}; {files} could not be read: remove the cause, then verify again"
            if not (found.units or found.shared or found.again):
                self.runner.console.line(count)
                return is_whole and not found.unreachable
        if not rerun:
            self.runner.console.line(f"{count}; repair it with: maskmill verify --rerun")
            return False
        self.runner.console.line(count)
        with locked(self.runner.config.manifests):
            for stage in found.shared:
                stage.repair()
            Redone(self.runner.config.manifests).add((u.part, u.facts) for u in found.misread)
            for stage, paths in found.units:
                for path in paths:
                    # A part may have got back to its place when another left it.
                    if _problems(path, path.parent):
                        stage.discard(path)
        if found.again:  # altered files are read as they are now
            self.runner.run(Request(tuple(found.again), only=True, force=True))
        if found.units:
            self.runner.run(Request(tuple({stage.name: None for stage, _ in found.units})))
        return self.verify(rerun=True)

    def _stages(self) -> list[AnyStage]:
        return list(self.runner.stages(list(self.runner.config.sections)))

    def _check(self) -> Damage:
        """Finds damage.

        Raises:
            DamagedPartError: A part that others are planned from is damaged, and nothing else is.
        """
        with Snapshot().active():  # each column and folder is read once for all plans
            return self._check_stages()

    def _check_stages(self) -> Damage:
        found = Damage()
        for stage in self._stages():
            try:
                plan = stage.plan()
            except StorageError:
                if not found.units:
                    raise
                break  # its input is damaged; a rerun plans it again
            except DataError as error:  # its input is missing, so nothing was made from it
                self.runner.console.note(f"{stage.name}: not checked: {error}")
                break
            for unit in plan:
                stopping.check()
                problems = _problems(unit.part, unit.part.parent)
                found.checked += problems is not None
                if problems:
                    found.units.append((stage, [unit.part, *_resumable(unit)]))
                    found.misread += [unit] if stage.misleads(unit) else []
                elif problems is not None:
                    files = stage.check_input_files(unit)
                    problems = [*files.altered, *files.unreachable]
                    found.altered += [stage.name] if files.altered else []
                    found.unreachable += len(files.unreachable)
                kept = stage.kept.find(unit.part, unit.companions, unit.fingerprint)
                for place, path in kept.items():
                    if in_kept := _problems(path, place.parent, kept):
                        problems = [*(problems or ()), *in_kept]
                        found.units.append((stage, [path]))
                for problem in problems or ():
                    self.runner.console.line(f"{stage.name}: {unit.name}: {problem}")
            for part in stage.orphans():
                self.runner.console.line(f"{stage.name}: {part}: no part of this run")
                found.units.append((stage, [part]))
            if shared := stage.damage():
                found.shared.append(stage)
            for problem in shared:
                self.runner.console.line(f"{stage.name}: {problem}")
        return found


def _resumable(unit: AnyUnit) -> Sequence[Path]:
    """The states of the damaged work that are damaged themselves: a whole one restores the work.

    Those of unfinished work with other facts stay.
    """
    try:
        is_same = part_file.read_facts(unit.part) == unit.facts
    except StorageError:
        is_same = all(storage.exists(output) for output in unit.outputs)
    saved = [path for path in unit.resumable if path.is_file()] if is_same else []
    return [path for path in saved if not archive_is_whole(storage.read_bytes(path))]


def _problems(
    part: Path, folder: Path, kept: Mapping[Path, Path] | None = None
) -> list[str] | None:
    """Problems of a part or the files that its rows describe; None if there is no part.

    Args:
        part: The part, in its place or kept.
        folder: The folder of its place.
        kept: See `part_file.damage`.
    """
    try:
        record = part_file.read_record(part)
    except StorageError as error:
        return [f"{error.where}: {error.what}"]
    return None if record is None else part_file.damage(part, record, folder, kept)
