"""The index is a copy: with it, without it and with a damaged one the same comes of reading."""

import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.records import manifest, part_file, tables
from pipeline.records.hidden_files import index_file
from pipeline.records.part_index import PartIndex

COLUMNS = ["image_id", "row", "status"]
COUNT = 120


def write(folder: Path, shard: int, status: str = "ok", **facts: Any) -> None:
    rows = [
        {"image_id": f"{shard}-{n}", "shard": shard, "row": 2 * shard + n, "status": status}
        for n in range(2)
    ]
    path = folder / f"part-{shard:05d}.parquet"
    facts = {"ingest.version": 1, "inputs.images": f"{shard:x}", **facts}
    part_file.write_part(path, tables.IMAGES.rows(rows), facts, {}, failed=shard % 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Many parts with their index."""
    folder = tmp_path / "images"
    for shard in range(COUNT):
        write(folder, shard)
    manifest.update_index(folder, tables.IMAGES)
    return folder


def read(folder: Path) -> pa.Table:
    return manifest.read(folder, tables.IMAGES, COLUMNS)


def records(folder: Path) -> dict[str, tuple[Any, int, int]]:
    return {
        name: (record.facts, record.failed, record.num_rows)
        for name, record in manifest.read_records(folder).items()
    }


def assert_told_as_without_it(folder: Path) -> None:
    table, known = read(folder), records(folder)
    aside = index_file(folder).rename(folder.parent / "aside")
    assert table.equals(read(folder))
    assert known == records(folder)
    aside.rename(index_file(folder))


def test_few_parts_have_no_index(tmp_path: Path) -> None:
    write(tmp_path / "images", 0)
    manifest.update_index(tmp_path / "images", tables.IMAGES)
    assert not index_file(tmp_path / "images").exists()


def test_it_says_what_the_parts_say(folder: Path) -> None:
    assert_told_as_without_it(folder)
    assert read(folder)["row"].to_pylist() == list(range(2 * COUNT))


def test_reading_opens_no_part_that_is_in_it(folder: Path) -> None:
    path = folder / "part-00007.parquet"
    before = path.stat()
    path.write_bytes(bytes(before.st_size))

    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert read(folder).num_rows == 2 * COUNT
    assert len(records(folder)) == COUNT


def test_new_changed_and_dropped_parts_are_reported_as_they_are(folder: Path) -> None:
    write(folder, 3, status="rejected")
    write(folder, 60, new=True)
    write(folder, COUNT)
    (folder / "part-00005.parquet").unlink()
    (folder / "part-00119.parquet").unlink()
    assert_told_as_without_it(folder)
    assert read(folder).num_rows == 2 * (COUNT - 1)
    assert records(folder)["part-00060.parquet"][0]["new"] is True


def test_it_is_written_again_when_much_has_changed(folder: Path) -> None:
    before = index_file(folder).stat().st_mtime_ns
    write(folder, COUNT)
    manifest.update_index(folder, tables.IMAGES)
    assert index_file(folder).stat().st_mtime_ns == before
    for shard in range(COUNT):
        write(folder, shard, status="rejected")
    manifest.update_index(folder, tables.IMAGES)
    assert index_file(folder).stat().st_mtime_ns > before
    assert_told_as_without_it(folder)


@pytest.mark.parametrize("cut", [0, 20, 4000, -1])
def test_a_damaged_one_is_as_good_as_none(folder: Path, cut: int) -> None:
    content = index_file(folder).read_bytes()
    index_file(folder).write_bytes(content[:cut])
    assert read(folder).num_rows == 2 * COUNT
    assert len(records(folder)) == COUNT


@pytest.mark.parametrize("start", [0.02, 0.5, 0.9, 0.99])
def test_bits_that_fell_over_in_it_change_nothing(folder: Path, start: float) -> None:
    good = index_file(folder).read_bytes()
    index_file(folder).unlink()
    table, known = read(folder), records(folder)
    for position in range(int(start * len(good)), len(good) - 8, 41)[:12]:
        content = bytearray(good)
        content[position] ^= 4
        index_file(folder).write_bytes(content)
        assert read(folder).equals(table), position
        assert records(folder) == known, position


def test_rows_of_another_s_index_are_not_taken_for_those_of_this_one(folder: Path) -> None:
    index = PartIndex(folder)
    write(folder, COUNT)
    (folder / "part-00000.parquet").unlink()
    for shard in range(1, COUNT):
        write(folder, shard, status="rejected")
    manifest.update_index(folder, tables.IMAGES)
    (rows,) = index.slices(index.read(COLUMNS), ["part-00007.parquet"])
    assert rows["status"].to_pylist() == ["ok", "ok"]
    assert read(folder)["status"].to_pylist() == ["rejected"] * (2 * COUNT - 2) + ["ok"] * 2


def test_columns_of_lists_come_from_the_parts(folder: Path) -> None:
    table = manifest.read(folder, tables.IMAGES)
    assert table.schema.equals(tables.IMAGES.schema)
    assert table.num_rows == 2 * COUNT


def test_an_index_of_a_former_version_is_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for shard in range(COUNT):
        write(folder, shard)
    shutil.copy(folder / "part-00000.parquet", folder / "_index.parquet")
    manifest.update_index(folder, tables.IMAGES)
    assert not (folder / "_index.parquet").exists()
