"""Deletes what nothing points to, and the rows of images that are gone."""

from collections.abc import Iterable
from pathlib import Path

from pipeline.engine.runner import Runner
from pipeline.engine.staleness import inspect
from pipeline.engine.states import State
from pipeline.errors import DataError
from pipeline.files import storage
from pipeline.files.run_lock import locked
from pipeline.records import tables
from pipeline.records.kept_parts import KeptParts
from pipeline.records.snapshot import Snapshot


def collect_garbage(runner: Runner, *, dry_run: bool) -> None:
    """Deletes kept parts and what the stages of a config call garbage, or lists it (`dry_run`).

    Before that the rows of images that are gone are dropped from all manifests. Kept parts that the
    config finds fresh return to their places first, as in a run. It takes the lock of the run, so
    that nothing is deleted while a training reads it.

    Raises:
        StorageError: Another command works on the run.
        MaskmillError: A stage cannot be planned.
    """
    if dry_run:
        _collect(runner, delete=False)
        return
    with locked(runner.config.manifests):
        _collect(runner, delete=True)


def _drop_gone(runner: Runner, *, delete: bool) -> bool:
    """Drops the rows of images that are gone, or lists them; returns whether there are any."""
    with Snapshot().active():
        stages = list(runner.stages(list(runner.config.sections)))
        try:
            for stage in stages:
                is_first = stage.table is tables.IMAGES
                if is_first and inspect(stage).state is not State.FRESH and stage.gone():
                    # What is gone may be found again, perhaps at another place.
                    what = "rows of images that are gone stay until `maskmill run ingest` is done"
                    runner.console.note(f"{stage.name}: {what}")
                    return False
            # Labels go before the rows of their images, in case this is killed.
            found = [(stage.name, drop) for stage in reversed(stages) for drop in stage.gone()]
        except DataError:  # a stage cannot be planned; `_collect` says which
            return False
    for name, drop in found:
        if delete:
            drop.apply()
        runner.console.line(f"{name}: {'dropped' if delete else 'would drop'} {drop}")
    return bool(found)


def _collect(runner: Runner, *, delete: bool) -> None:
    has_dropped = _drop_gone(runner, delete=delete)
    total = 0

    def collect(owner: str, paths: Iterable[Path]) -> None:
        nonlocal total
        for path in sorted(paths):
            size = storage.size_of(path)
            total += size
            if delete:
                _delete(path)
            did = "deleted" if delete else "would delete"
            runner.console.line(f"{owner}: {did} {path}, {_readable(size)}")

    in_use: set[Path] = set()
    replaced: list[Path] = []
    snapshot = Snapshot()
    for stage in runner.stages(list(runner.config.sections)):
        try:
            with snapshot.active():
                kept = inspect(stage).kept
            if delete and kept:
                for unit in kept:
                    stage.kept.restore(unit.kept, unit.unit.companions)
                snapshot = Snapshot()  # the parts have changed places
            with snapshot.active():
                found = list(stage.garbage())
        except DataError as error:  # its input is missing: its output may still be wanted
            runner.console.note(f"{stage.name}: not checked: {error}")
            break
        in_use |= {path for unit in kept for path in unit.kept.values()}
        if not delete:  # a run would move these to the kept parts
            replaced += [place for unit in kept for place in unit.kept if storage.exists(place)]
        collect(stage.name, found)
    else:
        kept_parts = [*replaced, *KeptParts(runner.config.manifests).all()]
        collect("kept from former keys", (part for part in kept_parts if part not in in_use))
    did = "freed" if delete else "would free"
    if total or not has_dropped:
        runner.console.line(f"{did} {_readable(total)}" if total else "nothing to delete")


def _delete(path: Path) -> None:
    """Deletes a file or a folder; a store's metadata first, so that no half of it is read."""
    if path.is_dir():
        storage.remove(path / "zarr.json")
    storage.remove(path)


def _readable(size: int) -> str:
    for unit, bytes_each in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= bytes_each:
            return f"{size / bytes_each:.1f} {unit}"
    return f"{size} bytes"
