"""Workspaces of the engine benchmark, written as if their work had been done."""

from __future__ import annotations

import io
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from PIL import Image

from pipeline.console import Console
from pipeline.engine.stage import Stage, Unit
from pipeline.records import part_file, tables
from pipeline.records.sharded_table import ShardedTable
from stages.evaluate.score_key import ScoreKey
from stages.ingest.output import read_shards
from stages.ingest.stage import IngestStage
from stages.pseudolabel.stage import PseudolabelStage
from stages.train.output import TrainingKey

IN_AN_ARCHIVE = 10_000
"""Images of an archive, as img2dataset writes them."""


_SIDE_PX = 16


_WRITERS = 16
"""Threads that wait for the disk."""


WITH_MASKS = 8
"""Images of each of the roles labeled, val and test."""


_LISTED = (
    *("image", "mask", "scheme", "source", "role", "row", "stamp", "mask_stamp", "caption", "url"),
)


def pack(folder: Path, count: int) -> None:
    """Writes archives as img2dataset does, of files that no plan reads."""
    folder.mkdir(parents=True)
    for number, first in enumerate(range(0, count, IN_AN_ARCHIVE)):
        keys = [f"{i:09d}" for i in range(first, min(count, first + IN_AN_ARCHIVE))]
        with tarfile.open(folder / f"{number:05d}.tar", "w") as archive:
            for key in keys:
                info = tarfile.TarInfo(f"{key}.jpg")
                info.size = 300
                archive.addfile(info, io.BytesIO(bytes(300)))
        urls = [f"https://example.org/pictures/{key}.jpg" for key in keys]
        captions = [f"a picture of something in the street, number {key}" for key in keys]
        sidecar = pd.DataFrame({"key": keys, "url": urls, "caption": captions})
        sidecar.to_parquet(folder / f"{number:05d}.parquet")


def draw(place: Path, count: int, seed: int = 0) -> None:
    """Draws images of noise with label files; other ones for another seed."""
    rng = np.random.default_rng(seed)
    for kind, shape in (("images", (_SIDE_PX, _SIDE_PX, 3)), ("masks", (_SIDE_PX, _SIDE_PX))):
        (place / kind).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 3 if kind == "masks" else 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(place / kind / f"{number:07d}.png")


def write_config(
    place: Path,
    sources: dict[str, Any],
    size_px: int = 512,
    labelers: int = 1,
    **more: Any,
) -> Path:
    """Writes a config of copied labels, with more sections."""
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


def finish(stage: Stage[Any], console: Console) -> None:
    """Writes the parts and outputs of a stage as if its work had been done."""
    pending = [unit for unit in stage.plan() if not unit.part.exists()]
    while pending:
        # Report cards depend on the labels, so they are planned again when the labels are written.
        now = [unit for unit in pending if unit.shard is not None] or pending
        _fill(stage, now, console)
        pending = [unit for unit in stage.plan() if not unit.part.exists()]


def _fill(stage: Stage[Any], units: list[Unit[Any]], console: Console) -> None:
    shards = None
    if isinstance(stage, PseudolabelStage):
        shards = read_shards(stage.context.config, ["ood", "labeled"])

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
            card = {"calibration": "stored", "images": WITH_MASKS, "class_iou": [0.5] * size}
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
    read: dict[str, Any] = {"width": 640, "height": 480, "format": "JPEG"}
    read |= {"shard": unit.shard, "status": "ok", "mask_class_ids": [0, 1, 2], "mask_ignored": 0.0}
    for row in rows:
        row["mask_uri"] = row["mask_uri"] or row["uri"]  # the labelers copy label files
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
