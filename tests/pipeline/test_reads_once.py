"""A command reads each column of the manifests once, whatever the number of trainings."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import COUNTS, WITH_MASKS
from tests.shapes import draw_shapes

SHARED = ("images", "pseudo_labels")
"""Manifests that all trainings read."""


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """Counts how often pyarrow reads each column of each file, by path and column."""
    counts: Counter[tuple[str, str]] = Counter()

    class CountingFile(pq.ParquetFile):  # type: ignore[misc]
        def __init__(self, source: Any, **options: Any) -> None:
            super().__init__(source, **options)
            self._path = str(source)

        def read(self, columns: list[str], **options: Any) -> pa.Table:
            counts.update((self._path, column) for column in columns)
            return super().read(columns, **options)

    monkeypatch.setattr(pq, "ParquetFile", CountingFile)
    return counts


def test_status_reads_each_column_once_whatever_the_number_of_trainings(
    stage_one: dict[str, Any],
    write_config: Callable[..., Path],
    call: Callable[..., CompletedProcess[str]],
    reads: Counter[tuple[str, str]],
) -> None:
    call("run pseudolabel", write_config(stage_one), code=0)

    def reads_of_status(variants: int, seeds: int) -> Counter[tuple[str, str]]:
        train = {
            "model": {"name": "small_unet", "encoder_weights": None},
            "perturbation": {"name": "unimatch"},
            "crop_px": 32,
            "batch_size": 2,
            "steps": 2,
            "validate_every": 1,
            "seeds": list(range(seeds)),
            "variants": {
                f"variant-{number}": {"label_sources": [{"name": "ema"}]}
                for number in range(variants)
            },
        }
        path = write_config({**stage_one, "train": train, "evaluate": {}, "report": {}})
        reads.clear()
        printed = call("status", path, code=0).stdout
        assert f"train       │ missing │     0 │     0 │       {variants * seeds}" in printed
        shared = {
            key: count
            for key, count in reads.items()
            if any(f"/{name}/" in key[0] for name in SHARED)
        }
        return Counter(shared)

    one, six = reads_of_status(1, 1), reads_of_status(2, 3)
    assert one == six
    assert {name for name in SHARED for path, _ in one if f"/{name}/" in path} == {*SHARED}
    assert set(one.values()) == {1}


_COUNTS_OPENS = """
import atexit, json, sys
from collections import Counter
import pyarrow.parquet as pq

opens = Counter()

class CountingFile(pq.ParquetFile):
    def __init__(self, source, **options):
        opens[str(source)] += 1
        super().__init__(source, **options)

def counting(source, *arguments, read=pq.read_metadata, **options):
    opens[str(source)] += 1
    return read(source, *arguments, **options)

pq.ParquetFile, pq.read_metadata = CountingFile, counting
atexit.register(lambda: print(json.dumps(opens), file=sys.stderr))
from maskmill.cli.main import main
main()
"""
"""Runs the command line, and prints how often pyarrow opened each file."""


def test_status_of_finished_trainings_opens_shared_manifests_as_often_for_one_as_for_six(
    stage_one: dict[str, Any],
    write_config: Callable[..., Path],
    call: Callable[..., CompletedProcess[str]],
    data: Path,
) -> None:
    draw_shapes(data, COUNTS, (*WITH_MASKS, "unlabeled"))
    stage_one["ingest"]["sources"]["unlabeled"]["source"]["masks"] = "unlabeled/masks"

    def opens_of_status(variants: int, seeds: int) -> Counter[str]:
        train = {
            "model": {"name": "small_unet", "encoder_weights": None},
            "perturbation": {"name": "unimatch"},
            "label_sources": [{"name": "stored", "labeler": "truth", "on": "unlabeled"}],
            "crop_px": 32,
            "batch_size": 2,
            "steps": 1,
            "device": "cpu",
            "seeds": list(range(seeds)),
            "variants": {f"variant-{number}": {} for number in range(variants)},
        }
        labels = {**stage_one["pseudolabel"], "roles": ["labeled", "unlabeled", "val", "test"]}
        config = {**stage_one, "pseudolabel": labels, "train": train}
        path = write_config({**config, "evaluate": {"device": "cpu"}, "report": {}})
        call("run", path, code=0)
        command = [sys.executable, "-c", _COUNTS_OPENS, "status", "--config", str(path), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        states = {stage["name"]: stage for stage in json.loads(done.stdout)["stages"]}
        assert {stage["state"] for stage in states.values()} == {"fresh"}
        assert states["train"]["shards"]["fresh"] == variants * seeds
        opens: Counter[str] = Counter()
        for file, count in json.loads(done.stderr.splitlines()[-1]).items():
            opens.update({name: count for name in SHARED if f"/{name}/" in file})
        return opens

    one, six = opens_of_status(1, 1), opens_of_status(2, 3)
    assert one == six
    assert set(one) == {*SHARED}
