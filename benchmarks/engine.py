"""Cost of the engine without models: plans of many images and trainings, and shards a second.

    python -m benchmarks.engine
    python -m benchmarks.engine --images 10000 --labeled 0
    python -m benchmarks.engine --memory jobs --memory train --plot memory.svg

The first table is of webdataset archives of tiny files. Their manifests are written as if two
labelers had labeled the images and all trainings, scores and report pages were finished. `status`
and a run with nothing to do are each a process of its own, with CPU seconds and peak memory. The
second is of images that are really ingested and labeled: the labeler `files` copies label files, so
that all time is the engine's, decoding and storing included. `--memory` measures long runs instead.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import memory_plot
from benchmarks.engine_memory import HEADER, LONG_RUNS, measured
from benchmarks.engine_workspace import WITH_MASKS, draw, finish, pack, write_config
from pipeline.config import config as config_file
from pipeline.console import Console
from pipeline.engine.runner import Runner
from pipeline.records import manifest, tables
from stages.graph import GRAPH

_BYTES_MB = 2**20


_SEEDS = 3


_PRINTS_ITS_COST = """
import atexit, re, sys, time
from pathlib import Path
status = Path("/proc/self/status")
peak = lambda: re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]
atexit.register(lambda: print(time.process_time(), peak(), file=sys.stderr))
from maskmill.cli.main import main
main()
"""
"""Runs the command line. `resource.getrusage` counts the process that it was forked from too."""


class Memory(StrEnum):
    """The long runs of `benchmarks.engine_memory`."""

    JOBS = "jobs"
    INGEST = "ingest"
    TRAIN = "train"
    EVALUATE = "evaluate"


console = Console()


def main(
    images: Annotated[list[int] | None, typer.Option(help="Images of a manifest.")] = None,
    trainings: Annotated[
        list[int] | None, typer.Option(help="Trainings in the config; more than 3: multiples of 3.")
    ] = None,
    labeled: Annotated[int, typer.Option(help="Images to label; 0: none.")] = 2560,
    workers: Annotated[list[int] | None, typer.Option(help="Worker processes to label on.")] = None,
    size_px: Annotated[int, typer.Option(help="Side of the stored masks.")] = 512,
    memory: Annotated[
        list[Memory] | None, typer.Option(help="Long runs whose memory to measure instead.")
    ] = None,
    count: Annotated[
        int | None, typer.Option(help="Jobs, images or steps of a long run; default: its own.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="SVG file of the memory of long runs.")] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Where to write some GB, deleted at the end.")
    ] = None,
) -> None:
    """Prints both tables, or that of memory."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        if memory:
            runs = [measured(LONG_RUNS[each], Path(place, each), count) for each in memory]
            console.table("memory of a process", HEADER, [run.row for run in runs])
            if plot is not None:
                plot.write_text(memory_plot.plot(runs))
            return
        sizes = [10_000, 100_000, 1_000_000] if images is None else images
        counts = [0, 3, 30] if trainings is None else trainings
        planned = [
            _planned(Path(place, f"plan-{size}-{count}"), size, count)
            for size in sizes
            for count in counts
        ]
        header: tuple[str, ...] = (
            "images",
            "trainings",
            "shards",
            "MB as a table",
            "first status",
            "status",
            "no-op run",
        )
        console.table("seconds (CPU seconds, peak MB) of a process", header, planned)
        if labeled:
            data = Path(place, "labels")
            draw(data, labeled)
            counts = workers or [0, 1, 2, 4]
            done = [_labeled(data, labeled, count, size_px) for count in counts]
            header = ("workers", "ingest ms/image", "label ms/image", "shards/s")
            console.table(f"{labeled} images, masks of {size_px} px, no model", header, done)


def _planned(place: Path, count: int, trainings: int) -> tuple[str, ...]:
    """Measures plans over this many web images, with this many trainings in the config."""
    pack(place / "web", count)
    sources: dict[str, Any] = {
        "web": {"role": "ood", "source": {"name": "webdataset", "shards": "web"}}
    }
    more: dict[str, Any] = {}
    if trainings:
        for role in ("labeled", "val", "test"):
            draw(place / role, WITH_MASKS)
            own = {"name": "folder", "images": f"{role}/images", "masks": f"{role}/masks"}
            sources[role] = {"role": role, "source": own}
        more = {"train": _train_section(trainings), "evaluate": {}, "report": {}}
    path = write_config(place, sources, labelers=2, **more)
    config = config_file.load(path, {stage.name: stage.Config for stage in GRAPH})
    for stage in Runner(config, GRAPH, console).stages(list(config.sections)):
        finish(stage, console)
    first = _timed("status", "--config", path)
    folder = config.manifests / tables.IMAGES.name
    manifest.update_index(folder, tables.IMAGES)
    for labels in (config.manifests / tables.PSEUDO_LABELS.name).iterdir():
        manifest.update_index(labels, tables.PSEUDO_LABELS)
    table = manifest.read(folder, tables.IMAGES)
    timed = [_timed("status", "--config", path, fresh=True), _timed("run", "--config", path)]
    parts = len(manifest.part_names(folder))
    shutil.rmtree(place)
    return (
        f"{count:,}",
        str(trainings),
        f"{parts:,}",
        f"{table.nbytes / _BYTES_MB:.0f}",
        first,
        *timed,
    )


def _train_section(trainings: int) -> dict[str, Any]:
    """Trainings of `_SEEDS` seeds a variant, which all read the stored labels."""
    sources = [{"name": "stored", "labeler": f"copied-{number}"} for number in range(2)]
    variants = {
        f"variant-{number}": {"label_sources": [sources[number % 2]]}
        for number in range(-(-trainings // _SEEDS))
    }
    return {
        "model": {"name": "small_unet", "encoder_weights": None},
        "perturbation": {"name": "unimatch"},
        "crop_px": 64,
        "batch_size": 8,
        "steps": 10,
        "seeds": list(range(min(trainings, _SEEDS))),
        "variants": variants,
    }


def _labeled(place: Path, count: int, workers: int, size_px: int) -> tuple[str, ...]:
    """What reading, labeling and storing this many images costs beside a model."""
    source = {"name": "folder", "images": "images", "masks": "masks"}
    path = write_config(
        place, {"web": {"role": "ood", "source": source}}, size_px, cluster={"workers": workers}
    )
    seconds = []
    for stage in ("ingest", "pseudolabel"):
        start = time.perf_counter()
        _maskmill("run", stage, "--config", path)
        seconds.append(time.perf_counter() - start)
    shards = -(-count // 64)
    for made in ("manifests", "artifacts"):
        shutil.rmtree(place / made)
    milliseconds = (f"{1000 * each / count:.2f}" for each in seconds)
    return (str(workers or "in process"), *milliseconds, f"{shards / seconds[1]:.1f}")


def _timed(*arguments: object, fresh: bool = False) -> str:
    """Seconds, CPU seconds and peak MB of a command, in a process of its own.

    Args:
        arguments: The command.
        fresh: Whether it must print that no stage is stale or missing.
    """
    start = time.perf_counter()
    printed, cpu_seconds, peak_kb = _maskmill(*arguments)
    seconds = time.perf_counter() - start
    if fresh and re.search(r"│ (stale|missing)\s*│", printed):
        sys.exit(f"not everything is fresh:\n{printed}")
    return f"{seconds:.2f} ({cpu_seconds:.2f}, {peak_kb / 1024:.0f})"


def _maskmill(*arguments: object) -> tuple[str, float, int]:
    """Runs the command line; what it printed, its CPU seconds and its peak memory in kB.

    Raises:
        SystemExit: It failed; what it printed is printed.
    """
    command = [sys.executable, "-c", _PRINTS_ITS_COST, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command[3:])} failed:\n{done.stdout}{done.stderr}")
    cpu_seconds, peak_kb = done.stderr.split()[-2:]
    return done.stdout, float(cpu_seconds), int(peak_kb)


if __name__ == "__main__":
    typer.run(main)
