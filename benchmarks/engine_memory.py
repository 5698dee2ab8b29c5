"""Memory of long runs: each is a real command, whose process is measured every second."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.engine_workspace import IN_AN_ARCHIVE, WITH_MASKS, draw, write_config

_SAMPLE_S = 1.0
_KB_MIB = 1024
_TINY_PX = 8
_MASK_PX = 32
_MODEL = {"name": "small_unet", "encoder_weights": None}
_TRAIN = {"model": _MODEL, "perturbation": "unimatch", "crop_px": 32, "batch_size": 2}


@dataclass(frozen=True)
class LongRun:
    """A command whose memory must not grow.

    Attributes:
        unit: What it does many of: "jobs".
        count: How many, by default.
        prepare: Writes a workspace for so many into a folder; returns its config.
        before: Stages that are run first, and not measured.
        stage: The stage that is measured.
    """

    unit: str
    count: int
    prepare: Callable[[Path, int], Path]
    before: tuple[str, ...]
    stage: str


@dataclass(frozen=True)
class Memory:
    """The resident memory of a process over its life.

    Attributes:
        title: What it did: "5,000 jobs".
        mib: MiB at each measurement.
        seconds: Seconds since its start, of each.
        most: The most MiB, as the kernel has counted it.
    """

    title: str
    mib: tuple[float, ...]
    seconds: tuple[float, ...]
    most: float

    @property
    def row(self) -> tuple[str, ...]:
        """A row of the table: MiB after a quarter, half, three quarters and all of the time."""
        last = len(self.mib) - 1
        quarters = (f"{self.mib[round(last * part / 4)]:.0f}" for part in (1, 2, 3, 4))
        return self.title, f"{self.seconds[-1]:.0f}", *quarters, f"{self.most:.0f}"


HEADER = ("run", "s", "MiB at 1/4", "at 1/2", "at 3/4", "at the end", "most")


def measured(run: LongRun, place: Path, count: int | None) -> Memory:
    """Prepares a run in a new folder, and measures its process.

    Raises:
        SystemExit: A command failed; what it printed is printed.
    """
    count = run.count if count is None else count
    place.mkdir()
    config = run.prepare(place, count)
    for stage in run.before:
        _watched(stage, config)
    seconds, mib, most = zip(*_watched(run.stage, config), strict=True)
    return Memory(f"{count:,} {run.unit}", mib, seconds, most[-1])


def _watched(stage: str, config: Path) -> list[tuple[float, float, float]]:
    """Runs a stage; seconds since its start, MiB of its process and most MiB, every second."""
    command = [sys.executable, "-m", "maskmill", "run", "--only", stage, "--config", str(config)]
    log = config.parent / f"{stage}.log"
    samples = []
    with log.open("w") as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=output)
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            found = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", status, re.MULTILINE))
            if found:  # else it has just ended
                now, most = (int(found[name]) / _KB_MIB for name in ("VmRSS", "VmHWM"))
                samples.append((time.perf_counter() - start, now, most))
            with suppress(subprocess.TimeoutExpired):
                process.wait(_SAMPLE_S)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{log.read_text()}")
    return samples


def _jobs(place: Path, count: int) -> Path:
    """A shard an image, whose label is copied."""
    draw(place / "ood", count)
    sources = {"ood": _source("ood")}
    ingest = {"shard_size": 1, "sources": sources}
    return write_config(place, sources, _MASK_PX, ingest=ingest)


def _ingest(place: Path, count: int) -> Path:
    """Archives of different images."""
    folder = place / "web"
    folder.mkdir()
    for number, first in enumerate(range(0, count, IN_AN_ARCHIVE)):
        with tarfile.open(folder / f"{number:05d}.tar", "w") as archive:
            for key in range(first, min(count, first + IN_AN_ARCHIVE)):
                pixels = np.zeros((_TINY_PX, _TINY_PX, 3), np.uint8)
                pixels[0, 0] = [*key.to_bytes(3)]
                content = io.BytesIO()
                Image.fromarray(pixels).save(content, "PNG")
                info = tarfile.TarInfo(f"{key:09d}.png")
                info.size = len(content.getvalue())
                archive.addfile(info, io.BytesIO(content.getvalue()))
    source = {"role": "ood", "source": {"name": "webdataset", "shards": "web"}}
    return write_config(place, {"web": source})


def _train(place: Path, count: int) -> Path:
    """A training of so many steps on few images."""
    draw(place / "labeled", WITH_MASKS)
    return write_config(place, {"labeled": _source("labeled")}, train={**_TRAIN, "steps": count})


def _evaluate(place: Path, count: int) -> Path:
    """A training of one step, which is scored on so many images."""
    draw(place / "labeled", WITH_MASKS)
    draw(place / "test", count, seed=1)
    sources = {role: _source(role) for role in ("labeled", "test")}
    return write_config(place, sources, train={**_TRAIN, "steps": 1}, evaluate={})


def _source(role: str) -> dict[str, Any]:
    folder = {"name": "folder", "images": f"{role}/images", "masks": f"{role}/masks"}
    return {"role": role, "source": folder}


LONG_RUNS = {
    "jobs": LongRun("jobs", 5_000, _jobs, ("ingest",), "pseudolabel"),
    "ingest": LongRun("images ingested", 200_000, _ingest, (), "ingest"),
    "train": LongRun("steps of a training", 2_000, _train, ("ingest",), "train"),
    "evaluate": LongRun("images evaluated", 5_000, _evaluate, ("ingest", "train"), "evaluate"),
}
