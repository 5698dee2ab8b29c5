"""What the engine costs beside the models: plans of many images, and shards a second of no work.

    python -m benchmarks.engine
    python -m benchmarks.engine --images 10000 --labeled 0

The first table is of webdataset archives of tiny files, and of manifests written as if their images
had been read and labeled: `status` and a run that finds nothing to do, each a process of its own,
with the most memory it held. The second is of images that are really ingested and labeled: the
labeler `files` copies label files, so that all time is the engine's, decoding and storing included.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
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
from pipeline.engine.stage import Context, Stage, Unit
from pipeline.records import manifest, part_file, tables
from pipeline.records.sharded_table import ShardedTable
from stages.graph import GRAPH
from stages.ingest.output import read_shards
from stages.ingest.stage import IngestStage
from stages.pseudolabel.stage import PseudolabelStage

_IN_AN_ARCHIVE = 10_000
_SIDE_PX = 16
_BYTES_MB = 2**20
_WRITERS = 16
"""Threads that wait for the disk."""
_TELLS_ITS_PEAK = """
import atexit, re, sys
from pathlib import Path
status = Path("/proc/self/status")
tell = lambda: print(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1], file=sys.stderr)
atexit.register(tell)
from pipeline.cli import main
main()
"""
"""Runs the command line. What `wait` says of a process counts the one that it was forked from."""
_LISTED = ("image", "mask", "scheme", "source", "role", "row", "stamp", "caption", "url")

console = Console()


def main(
    images: Annotated[list[int] | None, typer.Option(help="Images of a manifest.")] = None,
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
        planned = [_planned(Path(place, f"plan-{size}"), size) for size in sizes]
        header: tuple[str, ...] = (
            "images",
            "shards",
            "MB as a table",
            "first status",
            "status",
            "no-op run",
        )
        console.table("seconds and, in brackets, peak MB of a process", header, planned)
        if labeled:
            data = Path(place, "labels")
            _draw(data, labeled)
            counts = workers or [0, 1, 2, 4]
            done = [_labeled(data, labeled, count, size_px) for count in counts]
            header = ("workers", "ingest ms/image", "label ms/image", "shards/s")
            console.table(f"{labeled} images, masks of {size_px} px, no model", header, done)


def _planned(place: Path, count: int) -> tuple[str, ...]:
    """What planning over this many images costs."""
    _pack(place / "web", count)
    source = {"name": "webdataset", "shards": "web"}
    path = _write_config(place, {"web": {"role": "ood", "source": source}})
    sections = {stage.name: stage.Config for stage in GRAPH}
    config = config_file.load(path, sections)
    context = Context(config, console)
    ingest = IngestStage(config.sections["ingest"], context)
    units = ingest.plan()
    _fill(ingest, units, ((unit, _image_rows(ingest, unit)) for unit in units))
    pseudolabel = PseudolabelStage(config.sections["pseudolabel"], context)
    labels = pseudolabel.plan()
    shards = read_shards(config, ["ood"])
    _fill(pseudolabel, labels, ((unit, _label_rows(unit, shards)) for unit in labels))
    first = _timed("status", "--config", path)
    for stage, parts in ((ingest, units), (pseudolabel, labels)):
        manifest.update_index(parts[0].part.parent, stage.table)
    table = manifest.read(units[0].part.parent, tables.IMAGES)
    timed = [_timed("status", "--config", path), _timed("run", "pseudolabel", "--config", path)]
    shutil.rmtree(place)
    numbers = (f"{count:,}", f"{len(units):,}", f"{table.nbytes / _BYTES_MB:.0f}")
    return (*numbers, first, *timed)


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


def _write_config(place: Path, sources: dict[str, Any], size_px: int = 512, **more: Any) -> Path:
    vocabulary = Path("configs/vocabularies/sandbox.yaml").resolve()
    labelers = {"copied": {"name": "files"}}
    values = {
        "run": "engine",
        "workspace": str(place),
        "data": str(place),
        "vocabulary": str(vocabulary),
        "ingest": {"sources": sources},
        "pseudolabel": {"labelers": labelers, "size_px": size_px},
        **more,
    }
    path = place / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def _fill(
    stage: Stage, units: list[Unit], work: Iterator[tuple[Unit, list[dict[str, Any]]]]
) -> None:
    """Writes parts, as if the work had been done."""

    def write(item: tuple[Unit, list[dict[str, Any]]]) -> None:
        unit, rows = item
        for output in unit.outputs:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.touch()
        part_file.write_part(unit.part, stage.table.rows(rows), unit.facts, {})

    with (
        ThreadPoolExecutor(_WRITERS) as threads,
        console.progress(f"write {stage.name}", len(units), "parts") as progress,
    ):
        for _ in threads.map(write, work):
            progress.advance()


def _image_rows(ingest: IngestStage, unit: Unit) -> list[dict[str, Any]]:
    """Manifest rows of a shard as if its images had been read."""
    renamed = {"image": "uri", "mask": "mask_uri", "scheme": "label_scheme"}
    rows = [
        {renamed.get(key, key): value for key, value in entry.items() if key in _LISTED}
        for entry in ingest.layout.rows(unit.shard)
    ]
    read = {"shard": unit.shard, "status": "ok", "width": 640, "height": 480, "format": "JPEG"}
    return [{**row, **read, "image_id": f"{row['row']:016x}"} for row in rows]


def _label_rows(unit: Unit, images: ShardedTable) -> list[dict[str, Any]]:
    """Manifest rows of a shard as if its images had been labeled."""
    store = "artifacts/engine/pseudo_labels/copied.zarr/0123456789abcdef"
    label: dict[str, Any] = {"store": store}
    label |= {"shard": unit.shard, "height": 384, "width": 512, "coverage": 1.0, "status": "ok"}
    label |= {"mean_confidence": 0.5, "seconds": 0.01, "class_ids": [0, 7]}
    label |= {"class_fractions": [0.5, 0.5], "fingerprint": "0123456789abcdef"}
    return [
        {**label, "row": row["row"], "image_id": row["image_id"]} for row in images.rows(unit.shard)
    ]


def _timed(*arguments: object) -> str:
    """Seconds and peak MB of a command, in a process of its own."""
    start = time.perf_counter()
    peak_kb = _maskmill(*arguments)
    return f"{time.perf_counter() - start:.2f} ({peak_kb / 1024:.0f})"


def _maskmill(*arguments: object) -> int:
    """Runs the command line; the most memory that it held, in kB.

    Raises:
        SystemExit: It failed; what it printed is printed.
    """
    command = [sys.executable, "-c", _TELLS_ITS_PEAK, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command[3:])} failed:\n{done.stdout}{done.stderr}")
    return int(done.stderr.split()[-1])


if __name__ == "__main__":
    typer.run(main)
