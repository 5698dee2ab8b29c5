"""Finds the model file that a user names: a file, or a training of a run."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.errors import DataError
from pipeline.records import part_file, tables
from stages.train.output import TrainingFiles, TrainingKey

_PART = re.compile(r"part-train-(?P<variant>.+)-seed-(?P<seed>\d+)\.parquet")


def model_of_run(workspace: Path, name: str) -> Path:
    """The model file of a finished training.

    Args:
        workspace: The folder of `manifests` and `artifacts`.
        name: A run, or RUN/VARIANT, or RUN/VARIANT/SEED. Without a seed it is the first one.

    Raises:
        DataError: There is no such training, or the run has several variants.
    """
    run, variant, seed = (*name.split("/"), None, None)[:3]
    found = finished_trainings(workspace, str(run))
    if not found:
        known = sorted(path.name for path in (workspace / "manifests").glob("[!.]*/"))
        what = "no finished training in " + str(workspace / "manifests")
        fix = f"runs here: {', '.join(known) or 'none'}; or name a file with --model"
        raise DataError(what, where=f"--run {name}", fix=fix)
    chosen = [
        files
        for key, files in sorted(found.items(), key=lambda item: (item[0].variant, item[0].seed))
        if variant in (None, key.variant) and seed in (None, str(key.seed))
    ]
    variants = sorted({key.variant for key in found})
    if not chosen or (variant is None and len(variants) > 1):
        what = "the run has no such training" if variant else "the run has several variants"
        names = ", ".join(f"{run}/{each}" for each in variants)
        raise DataError(what, where=f"--run {name}", fix=f"name one of: {names}")
    return chosen[0].weights


def finished_trainings(workspace: Path, run: str) -> dict[TrainingKey, TrainingFiles]:
    """The finished trainings of a run by variant and seed; {} for no run."""
    folder = workspace / "manifests" / run / tables.METRICS.name
    found = {}
    for part in folder.glob("part-train-*.parquet"):
        facts, named = part_file.read_facts(part), _PART.fullmatch(part.name)
        if facts is not None and named is not None:
            key = TrainingKey(named["variant"], int(named["seed"]))
            place = workspace / "artifacts" / run / "checkpoints" / key.variant / f"seed-{key.seed}"
            found[key] = TrainingFiles(place / part_file.digest(facts))
    return found


def key_of_file(path: Path) -> TrainingKey:
    """The training of a model file that `model_of_run` found: checkpoints/VARIANT/seed-N/..."""
    seed, variant = path.parents[1].name, path.parents[2].name
    return TrainingKey(variant, int(seed.removeprefix("seed-")))
