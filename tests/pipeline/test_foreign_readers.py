"""Manifests are read by pandas, Polars, DuckDB and Hugging Face datasets as the same rows."""

from collections.abc import Callable
from pathlib import Path

import datasets
import duckdb
import pandas as pd
import polars
import pytest

from pipeline.records import manifest, part_file, tables

PARTS = 120
"""More parts than those from which on a folder has an index."""


def by_pandas(folder: Path) -> list[str]:
    return [*pd.read_parquet(folder)["image_id"]]


def by_polars(folder: Path) -> list[str]:
    return polars.read_parquet(folder)["image_id"].to_list()


def by_duckdb(folder: Path) -> list[str]:
    with duckdb.connect() as connection:
        found = connection.execute(f"SELECT image_id FROM '{folder}/*.parquet'").fetchall()
    return [name for (name,) in found]


def by_datasets(folder: Path) -> list[str]:
    rows = datasets.load_dataset(
        "parquet", data_dir=str(folder), cache_dir=str(folder.parent / "cache")
    )
    return list(rows["train"]["image_id"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A manifest of many parts with its index, and with what a killed writer leaves."""
    folder = tmp_path / "images"
    for shard in range(PARTS):
        rows = [{"image_id": f"{shard}-{row}", "shard": shard, "row": row} for row in range(2)]
        part_file.write_part(folder / part_file.part_name(shard), tables.IMAGES.rows(rows), {}, {})
    manifest.update_index(folder, tables.IMAGES)
    return folder


@pytest.mark.parametrize("read", [by_pandas, by_polars, by_duckdb, by_datasets])
def test_every_reader_finds_every_row_once(folder: Path, read: Callable[[Path], list[str]]) -> None:
    expected = [f"{shard}-{row}" for shard in range(PARTS) for row in range(2)]
    assert sorted(read(folder)) == sorted(expected)
