"""Cost of the engine without models: plans of many images and trainings, and shards a second.

    python -m benchmarks.engine
    python -m benchmarks.engine --images 10000 --labeled 0

The first table is of webdataset archives of tiny files. Their manifests are written as if two
labelers had labeled the images and all trainings, scores and report pages were finished. `status`
and a run with nothing to do are each a process of its own, with CPU seconds and peak memory. The
second is of images that are really ingested and labeled: the labeler `files` copies label files, so
that all time is the engine's, decoding and storing included.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
import yaml
from PIL import Image

from pipeline.config import config as config_file
from pipeline.console import Console
from pipeline.engine.runner import Runner
from pipeline.engine.stage import Stage, Unit
from pipeline.records import manifest, part_file, tables
from pipeline.records.sharded_table import ShardedTable
from stages.evaluate.score_key import ScoreKey
from stages.graph import GRAPH
from stages.ingest.output import read_shards
from stages.ingest.stage import IngestStage
from stages.pseudolabel.stage import PseudolabelStage
from stages.train.output import TrainingKey

_IN_AN_ARCHIVE = 10_000
_SIDE_PX = 16
_BYTES_MB = 2**20
_WRITERS = 16
"""Threads that wait for the disk."""
_WITH_MASKS = 8
"""Images of each of the roles labeled, val and test."""
_SEEDS = 3
_PRINTS_ITS_COST = """
import atexit, re, sys, time
from pathlib import Path
status = Path("/proc/self/status")
peak = lambda: re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]
atexit.register(lambda: print(time.process_time(), peak(), file=sys.stderr))
from pipeline.cli import main
main()
"""
"""Runs the command line. `resource.getrusage` counts the process that it was forked from too."""
_LISTED = (
    *("image", "mask", "scheme", "source", "role", "row", "stamp", "mask_stamp", "caption", "url"),
)

console = Console()


def main(
    images: Annotated[list[int] | None, typer.Option(help="Images of a manifest.")] = None,
    trainings: Annotated[
        list[int] | None, typer.Option(help="Trainings in the config; more than 3: multiples of 3.")
    ] = None,
    labeled: Annotated[int, typer.Option(help="Images to label; 0: none.")] = 2560,
    workers: Annotated[list[int] | None, typer.Option(help="Worker processes to label on.")] = None,
    size_px: Annotated[int, typer.Option(help="Side of the stored masks.")] = 512,
    folder: Annotated[
        Path | None, typer.Option(help="Where to write some GB, deleted at the end.")
    ] = None,
) -> None:
    """Prints both tables."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
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
            _draw(data, labeled)
            counts = workers or [0, 1, 2, 4]
            done = [_labeled(data, labeled, count, size_px) for count in counts]
            header = ("workers", "ingest ms/image", "label ms/image", "shards/s")
            console.table(f"{labeled} images, masks of {size_px} px, no model", header, done)


def _planned(place: Path, count: int, trainings: int) -> tuple[str, ...]:
    """Measures plans over this many web images, with this many trainings in the config."""
    _pack(place / "web", count)
    sources: dict[str, Any] = {
        "web": {"role": "ood", "source": {"name": "webdataset", "shards": "web"}}
    }
    more: dict[str, Any] = {}
    if trainings:
        for role in ("labeled", "val", "test"):
            _draw(place / role, _WITH_MASKS)
            own = {"name": "folder", "images": f"{role}/images", "masks": f"{role}/masks"}
            sources[role] = {"role": role, "source": own}
        more = {"train": _train_section(trainings), "evaluate": {}, "report": {}}
    path = _write_config(place, sources, labelers=2, **more)
    config = config_file.load(path, {stage.name: stage.Config for stage in GRAPH})
    for stage in Runner(config, GRAPH, console).stages(list(config.sections)):
        _finish(stage)
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
    path = _write_config(
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


def _pack(folder: Path, count: int) -> None:
    """Writes archives as img2dataset does, of files that no plan reads."""
    folder.mkdir(parents=True)
    for number, first in enumerate(range(0, count, _IN_AN_ARCHIVE)):
        keys = [f"{i:09d}" for i in range(first, min(count, first + _IN_AN_ARCHIVE))]
        with tarfile.open(folder / f"{number:05d}.tar", "w") as archive:
            for key in keys:
                info = tarfile.TarInfo(f"{key}.jpg")
                info.size = 300
                archive.addfile(info, io.BytesIO(bytes(300)))
        urls = [f"https://example.org/pictures/{key}.jpg" for key in keys]
        captions = [f"a picture of something in the street, number {key}" for key in keys]
        sidecar = pd.DataFrame({"key": keys, "url": urls, "caption": captions})
        sidecar.to_parquet(folder / f"{number:05d}.parquet")


def _draw(place: Path, count: int) -> None:
    """Draws images of noise with label files."""
    rng = np.random.default_rng(0)
    for kind, shape in (("images", (_SIDE_PX, _SIDE_PX, 3)), ("masks", (_SIDE_PX, _SIDE_PX))):
        (place / kind).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 3 if kind == "masks" else 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(place / kind / f"{number:07d}.png")


def _write_config(
    place: Path,
    sources: dict[str, Any],
    size_px: int = 512,
    labelers: int = 1,
    **more: Any,
) -> Path:
    vocabulary = Path("configs/vocabularies/sandbox.yaml").resolve()
    copied = {f"copied-{number}": {"name": "files"} for number in range(labelers)}
    values = {
        "run": "engine",
        "workspace": str(place),
        "data": str(place),
        "vocabulary": str(vocabulary),
        "ingest": {"sources": sources},
        "pseudolabel": {"labelers": copied, "size_px": size_px},
        **more,
    }
    path = place / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def _finish(stage: Stage[Any]) -> None:
    """Writes the parts and outputs of a stage as if its work had been done."""
    pending = [unit for unit in stage.plan() if not unit.part.exists()]
    while pending:
        # Report cards depend on the labels, so they are planned again when the labels are written.
        now = [unit for unit in pending if unit.shard is not None] or pending
        _fill(stage, now)
        pending = [unit for unit in stage.plan() if not unit.part.exists()]


def _fill(stage: Stage[Any], units: list[Unit[Any]]) -> None:
    shards = None
    if isinstance(stage, PseudolabelStage):
        shards = read_shards(stage.context.config, ["ood"])

    def write(unit: Unit[Any]) -> None:
        for output in unit.outputs:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.touch()
        if isinstance(stage, IngestStage):
            rows = tables.IMAGES.rows(_image_rows(stage, unit))
        elif unit.shard is not None and shards is not None:
            rows = tables.PSEUDO_LABELS.rows(_label_rows(unit, shards))
        elif isinstance(stage, PseudolabelStage):
            size = stage.context.config.vocabulary.num_classes
            card = {"calibration": "stored", "images": _WITH_MASKS, "class_iou": [0.5] * size}
            rows = tables.REPORT_CARD.rows([card])
        else:
            rows = stage.table.rows(_metric_rows(unit.key))
        for companion in unit.companions:
            part_file.write_part(companion, tables.CONFUSION.rows([]), unit.facts, {})
        part_file.write_part(unit.part, rows, unit.facts, {})

    with (
        ThreadPoolExecutor(_WRITERS) as threads,
        console.progress(f"write {stage.name}", len(units), "parts") as progress,
    ):
        for _ in threads.map(write, units):
            progress.advance()


def _metric_rows(key: object) -> list[dict[str, Any]]:
    """Metrics rows of a training or a score; none for files of the report."""
    if isinstance(key, TrainingKey):
        own = {"kind": "training", "variant": key.variant, "seed": key.seed, "split": "val"}
        return [{**own, "step": step, "name": "miou", "value": 0.5} for step in range(1, 11)]
    if isinstance(key, ScoreKey):
        own = {"kind": key.kind, "variant": key.name, "seed": key.seed, "split": key.split}
        return [{**own, "name": name, "value": 0.5} for name in ("miou", "pixel_accuracy")]
    return []


def _image_rows(ingest: IngestStage, unit: Unit[Any]) -> list[dict[str, Any]]:
    """Manifest rows of a shard as if its images had been read."""
    renamed = {"image": "uri", "mask": "mask_uri", "scheme": "label_scheme"}
    rows = [
        {renamed.get(key, key): value for key, value in entry.items() if key in _LISTED}
        for entry in ingest.layout.rows(unit.shard)
    ]
    read = {"shard": unit.shard, "status": "ok", "width": 640, "height": 480, "format": "JPEG"}
    return [{**row, **read, "image_id": f"{row['row']:016x}"} for row in rows]


def _label_rows(unit: Unit[Any], images: ShardedTable) -> list[dict[str, Any]]:
    """Manifest rows of a shard as if its images had been labeled."""
    store = "artifacts/engine/pseudo_labels/copied.zarr/0123456789abcdef"
    label: dict[str, Any] = {"store": store}
    label |= {"shard": unit.shard, "height": 384, "width": 512, "coverage": 1.0, "status": "ok"}
    label |= {"mean_confidence": 0.5, "seconds": 0.01, "class_ids": [0, 7]}
    label |= {"class_fractions": [0.5, 0.5], "fingerprint": "0123456789abcdef"}
    return [
        {**label, "row": row["row"], "image_id": row["image_id"]} for row in images.rows(unit.shard)
    ]


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
