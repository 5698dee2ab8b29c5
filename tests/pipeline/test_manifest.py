import json
import random
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipeline.errors import StorageError
from pipeline.records import manifest, part_file, tables

FACTS: dict[str, Any] = {"stage.version": 1, "inputs.images": "00ff"}


def rows(shard: int, count: int = 4) -> list[dict[str, Any]]:
    return [
        {
            "image_id": f"{shard:08x}{number:08x}",
            "uri": f"/data/{shard}/{number}.png",
            "shard": shard,
            "row": 4 * shard + number,
            "status": "ok",
            "mask_class_ids": [0, 2] if number % 2 else None,
        }
        for number in range(count)
    ]


def write(folder: Path, shard: int, **facts: Any) -> Path:
    path = folder / f"part-{shard:05d}.parquet"
    part_file.write_part(path, tables.IMAGES.rows(rows(shard)), {**FACTS, **facts}, {"a": [1]})
    return path


def test_parts_read_back_as_one_table_in_order(tmp_path: Path) -> None:
    for shard in (10, 2, 0):
        write(tmp_path, shard)
    table = manifest.read(tmp_path, tables.IMAGES)
    assert table.schema.equals(tables.IMAGES.schema)
    assert table["shard"].to_pylist() == [0] * 4 + [2] * 4 + [10] * 4
    assert table.select(["image_id", "mask_class_ids"]).to_pylist()[1] == {
        "image_id": "0000000000000001",
        "mask_class_ids": [0, 2],
    }
    ids = manifest.read(tmp_path, tables.IMAGES, columns=["image_id"])
    assert ids.column_names == ["image_id"]
    assert ids["image_id"].to_pylist() == table["image_id"].to_pylist()


def test_bits_that_fell_over_anywhere_in_a_part_are_damage(tmp_path: Path) -> None:
    path = write(tmp_path, 0)
    good = path.read_bytes()
    table, record = pq.read_table(path).to_pylist(), part_file.read_record(path)
    missed = []
    for position in range(4, len(good), 7):
        content = bytearray(good)
        content[position] ^= 1
        path.write_bytes(content)
        try:
            found = part_file.read_record(path)
            if found is None or not part_file.damage(path, found, path.parent):
                assert found == record
                assert pq.read_table(path).to_pylist() == table
        except StorageError:
            continue
        missed.append(position)
    assert len(missed) < len(range(4, len(good), 7))


def test_a_folder_that_is_not_there_is_an_empty_table(tmp_path: Path) -> None:
    table = manifest.read(tmp_path / "none", tables.METRICS)
    assert table.num_rows == 0
    assert table.schema.equals(tables.METRICS.schema)
    columns = manifest.read(tmp_path / "none", tables.METRICS, columns=["value"]).column_names
    assert columns == ["value"]


@pytest.mark.parametrize("table", tables.TABLES, ids=lambda table: table.name)
def test_pandas_reads_a_folder_with_the_documented_columns(
    table: tables.Table, tmp_path: Path
) -> None:
    folder = tmp_path / table.name
    for shard in range(2):
        path = folder / "labeler=clip" if table is tables.PSEUDO_LABELS else folder
        part_file.write_part(path / f"part-{shard:05d}.parquet", table.rows([{}]), FACTS, {})
    (folder / ".lock").touch()
    (folder / ".part-00009.parquet.7.tmp").touch()
    frame = pd.read_parquet(folder)
    partitions = ["labeler"] if table is tables.PSEUDO_LABELS else []
    assert list(frame.columns) == [field.name for field in table.schema] + partitions
    assert len(frame) == 2


def test_a_part_records_what_it_was_made_from(tmp_path: Path) -> None:
    path = write(tmp_path, 0)
    assert part_file.read_facts(path) == FACTS
    assert part_file.read_facts(tmp_path / "part-00001.parquet") is None
    record = json.loads(pq.read_metadata(path).metadata[b"maskmill"])
    assert record["fingerprint"] == part_file.digest(FACTS)
    assert record["config"] == {"a": [1]}
    assert {"maskmill", "numpy", "torch", "zarr"} <= record["versions"].keys()


def test_a_digest_knows_no_order_of_keys() -> None:
    assert part_file.digest({"a": 1, "b": [2, None]}) == part_file.digest({"b": [2, None], "a": 1})
    assert part_file.digest({"a": 1}) != part_file.digest({"a": 2})
    assert part_file.digest([1, 2]) != part_file.digest([2, 1])


def test_a_part_is_replaced_as_a_whole_and_leaves_nothing_next_to_it(tmp_path: Path) -> None:
    write(tmp_path, 0, key="old")
    path = write(tmp_path, 0, key="new")
    assert (part_file.read_facts(path) or {})["key"] == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_removed_and_parts_stay(tmp_path: Path) -> None:
    path = write(tmp_path / "images", 0)
    left = tmp_path / "pseudo_labels" / "labeler=clip" / ".part-00003.parquet.123.tmp"
    left.parent.mkdir(parents=True)
    left.touch()
    manifest.remove_temporaries(tmp_path)
    assert not left.exists()
    assert path.exists()


def test_damage_anywhere_in_a_part_is_an_error_that_names_the_part(tmp_path: Path) -> None:
    write(tmp_path, 0)
    path = write(tmp_path, 1)
    good, table = path.read_bytes(), manifest.read(tmp_path, tables.IMAGES)
    dice = random.Random(0)
    messages = []
    for position in dice.sample(range(len(good)), 300):
        damaged = bytearray(good)
        damaged[position] ^= 255
        path.write_bytes(damaged)
        for read in (
            lambda: manifest.read(tmp_path, tables.IMAGES).to_pylist(),
            lambda: part_file.read_facts(path),
        ):
            try:
                read()
            except StorageError as error:
                messages.append(str(error))
    assert len(messages) > 300
    assert set(messages) == {
        f"{path}: damaged manifest part; make it again with: maskmill verify --rerun"
    }
    path.write_bytes(good)
    assert manifest.read(tmp_path, tables.IMAGES).equals(table)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all, but long enough to be"])
def test_what_is_no_part_is_an_error_that_names_it(content: bytes, tmp_path: Path) -> None:
    write(tmp_path, 0)
    path = tmp_path / "part-00001.parquet"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"part-00001\.parquet: damaged manifest part"):
        manifest.read(tmp_path, tables.IMAGES)
    with pytest.raises(StorageError, match=r"part-00001\.parquet: damaged manifest part"):
        part_file.read_facts(path)


def test_a_parquet_file_of_somebody_else_is_no_part(tmp_path: Path) -> None:
    path = tmp_path / "part-00000.parquet"
    pd.DataFrame({"image_id": ["a"]}).to_parquet(path)
    with pytest.raises(StorageError, match="damaged manifest part"):
        part_file.read_facts(path)


def test_a_full_disk_leaves_the_part_that_was_there(small_disk: Path) -> None:
    path = small_disk / "images" / "part-00000.parquet"
    part_file.write_part(path, tables.IMAGES.rows(rows(0)), FACTS, {})
    noise = [{"uri": random.Random(number).randbytes(64).hex()} for number in range(3000)]
    with pytest.raises(OSError, match="No space left on device") as error:
        part_file.write_part(path, tables.IMAGES.rows(noise), {}, {})
    assert error.value.filename == str(path)
    assert part_file.read_facts(path) == FACTS
    assert [each for each in small_disk.rglob("*") if each.is_file()] == [path]


def test_other_rows_have_a_fingerprint_of_their_own(tmp_path: Path) -> None:
    path = write(tmp_path, 0)
    facts = {**FACTS, "stage.version": 2}
    part_file.replace_rows(path, tables.IMAGES.rows(rows(0, 2)), facts)
    record = json.loads(pq.read_metadata(path).metadata[b"maskmill"])
    assert record["fingerprint"] == part_file.digest(facts)
    assert (record["num_rows"], record["facts"], record["config"]) == (2, facts, {"a": [1]})


@pytest.mark.parametrize("key", ["facts", "files", "failed", "rows", "num_rows"])
def test_a_record_without_a_key_is_damage(key: str, tmp_path: Path) -> None:
    path = write(tmp_path, 0)
    table = pq.read_table(path)
    record = json.loads(pq.read_metadata(path).metadata[b"maskmill"])
    del record[key]
    text = json.dumps(record)
    own = {b"maskmill": text, b"maskmill.checksum": part_file.digest(text)}
    pq.write_table(table.replace_schema_metadata(own), path)
    with pytest.raises(StorageError, match="damaged manifest part"):
        part_file.read_record(path)
