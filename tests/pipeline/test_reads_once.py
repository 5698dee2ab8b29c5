"""A command reads each column of the manifests once, whatever the number of trainings."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

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
