import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import zarr

from pipeline.config.vocabulary import IGNORE
from pipeline.errors import StorageError
from pipeline.records.label_documents import damaged_documents, restore_documents
from pipeline.records.label_reader import LabelReader, StoredLabel
from pipeline.records.label_store import LabelStore, unused_files

Bytes = npt.NDArray[np.uint8]
RNG = np.random.default_rng(0)
MASKS: Bytes = RNG.integers(0, 5, (4, 32, 32), dtype=np.uint8)
CONFIDENCES: Bytes = RNG.integers(0, 256, (4, 8, 8), dtype=np.uint8)


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    """Two shards of four rows; of the second only row 6 is written."""
    store = LabelStore(tmp_path / "clip.zarr" / "0123", shard_size=4, size_px=32)
    store.grow(2)
    store.write(0, [0, 1, 2, 3], MASKS, CONFIDENCES)
    store.write(1, [6], MASKS[:1], CONFIDENCES[:1])
    return store


def read_all(store: LabelStore) -> list[tuple[Bytes, Bytes]]:
    return read(store, *((row, (32, 32)) for row in range(8)))


def read(store: LabelStore, *places: tuple[int, tuple[int, int]]) -> list[tuple[Bytes, Bytes]]:
    """The labels of rows, with the sizes of their images."""
    return LabelReader().read([StoredLabel(store.path, row, size) for row, size in places])


def test_labels_read_back_and_what_was_not_written_is_ignore(store: LabelStore) -> None:
    labels = read_all(store)
    for row, source in ((0, 0), (1, 1), (2, 2), (3, 3), (6, 0)):
        np.testing.assert_array_equal(labels[row][0], MASKS[source])
        np.testing.assert_array_equal(labels[row][1], CONFIDENCES[source])
    for row in (4, 5, 7):
        assert (labels[row][0] == IGNORE).all()
        assert (labels[row][1] == 0).all()


def test_any_rows_in_any_order_come_without_their_padding(store: LabelStore) -> None:
    labels = read(store, (3, (32, 24)), (0, (1, 32)), (3, (30, 2)))
    assert [mask.shape for mask, _ in labels] == [(32, 24), (1, 32), (30, 2)]
    assert [confidence.shape for _, confidence in labels] == [(8, 6), (1, 8), (8, 1)]
    np.testing.assert_array_equal(labels[0][0], MASKS[3, :, :24])
    np.testing.assert_array_equal(labels[1][1], CONFIDENCES[0, :1])
    np.testing.assert_array_equal(labels[2][0], MASKS[3, :30, :2])


def test_growing_keeps_what_is_there(store: LabelStore) -> None:
    store.grow(5)
    store.grow(1)  # never shrinks
    store.write(4, [16], MASKS[1:2], CONFIDENCES[1:2])
    np.testing.assert_array_equal(read_all(store)[2][0], MASKS[2])
    [(mask, _)] = read(store, (16, (32, 32)))
    np.testing.assert_array_equal(mask, MASKS[1])


def test_a_shard_is_one_file_even_where_all_is_ignore(store: LabelStore) -> None:
    nothing = np.full((4, 32, 32), IGNORE, np.uint8)
    store.grow(3)
    store.write(2, [8, 9, 10, 11], nothing, np.zeros((4, 8, 8), np.uint8))
    for name in ("mask", "confidence"):
        files = sorted(path for path in (store.path / name / "c").rglob("*") if path.is_file())
        assert files == [store.shard_file(shard, name) for shard in range(3)]


def test_writing_a_shard_again_replaces_it_and_leaves_the_others(store: LabelStore) -> None:
    other = store.shard_file(1).read_bytes()
    store.write(0, [1], MASKS[3:], CONFIDENCES[3:])
    labels = read_all(store)
    np.testing.assert_array_equal(labels[1][0], MASKS[3])
    assert (labels[0][0] == IGNORE).all()
    assert store.shard_file(1).read_bytes() == other


def test_it_is_plain_zarr_with_a_chunk_an_image(store: LabelStore) -> None:
    array = zarr.open_group(store.path.parent, mode="r")["0123/mask"]
    assert isinstance(array, zarr.Array)
    assert array.metadata.zarr_format == 3
    assert (array.shape, array.chunks, array.shards) == ((8, 32, 32), (1, 32, 32), (4, 32, 32))
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array[:4], MASKS)


def test_damage_is_found_and_the_file_named(store: LabelStore) -> None:
    path = store.shard_file(0)
    good, expected = path.read_bytes(), read_all(store)
    dice = random.Random(0)
    messages = []
    for position in dice.sample(range(len(good)), 100):
        damaged = bytearray(good)
        damaged[position] ^= 255
        path.write_bytes(damaged)
        try:
            labels = read_all(store)
        except StorageError as error:
            messages.append(str(error))
        else:  # a byte that means nothing
            for (mask, _), (mask_before, _) in zip(labels, expected, strict=True):
                np.testing.assert_array_equal(mask, mask_before)
    assert len(messages) > 90
    for message in messages:
        assert str(path) in message
        assert message.startswith(f"{store.path}: damaged labels: ")
        assert message.endswith("; run `maskmill verify --rerun`: it labels damaged shards again")
        assert "\n" not in message


def test_a_truncated_shard_is_damage(store: LabelStore) -> None:
    path = store.shard_file(0, "confidence")
    for size in (0, 100):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(StorageError, match="damaged labels"):
            read_all(store)


def remove(path: Path) -> None:
    path.unlink()


def garble(path: Path) -> None:
    path.write_text("{nonsense")


def empty(path: Path) -> None:
    path.write_text("{}")


@pytest.mark.parametrize("damage", [remove, garble, empty])
def test_arrays_that_cannot_be_opened_are_damage(
    store: LabelStore, damage: Callable[[Path], None]
) -> None:
    damage(store.path / "mask" / "zarr.json")
    with pytest.raises(StorageError) as error:
        read_all(store)
    assert str(error.value).startswith(f"{store.path}: damaged labels: ")
    assert "; run `maskmill verify --rerun`: it restores what describes the arrays" in str(
        error.value
    )
    assert damaged_documents(store) == [store.path / "mask" / "zarr.json"]
    restore_documents(store)
    assert damaged_documents(store) == []
    np.testing.assert_array_equal(read_all(store)[2][0], MASKS[2])


def test_every_changed_byte_of_a_document_is_damage_or_changes_nothing(store: LabelStore) -> None:
    expected = [mask for mask, _ in read_all(store)]
    for path in [*store.path.rglob("zarr.json"), store.path.parent / "zarr.json"]:
        good = path.read_bytes()
        for position in range(0, len(good), 7):
            path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
            if path not in damaged_documents(store):
                for (mask, _), before in zip(read_all(store), expected, strict=True):
                    np.testing.assert_array_equal(mask, before)
        path.write_bytes(good)


@pytest.mark.parametrize("where", ["zarr.json", "0123/zarr.json", "0123/mask/zarr.json"])
def test_a_damaged_store_cannot_grow(store: LabelStore, where: str) -> None:
    garble(store.path.parent / where)
    with pytest.raises(StorageError, match=r"damaged labels: .*maskmill verify --rerun"):
        store.grow(3)


def test_shards_of_another_size_are_refused(store: LabelStore) -> None:
    smaller = LabelStore(store.path, shard_size=2, size_px=32)
    with pytest.raises(
        StorageError, match=r"another shard size \(expected 2 images\); delete the folder"
    ):
        smaller.grow(4)


def test_rows_that_no_array_has_are_an_error(store: LabelStore) -> None:
    with pytest.raises(StorageError, match="Index 99 is outside valid range"):
        read(store, (99, (32, 32)))


def test_a_full_disk_is_reported_with_the_file(small_disk: Path) -> None:
    noise = RNG.integers(0, 256, (4, 256, 256), dtype=np.uint8)
    store = LabelStore(small_disk / "clip.zarr" / "0123", shard_size=4, size_px=256)
    store.grow(1)
    with pytest.raises(OSError, match="No space left on device") as error:
        store.write(0, [0, 1, 2, 3], noise, np.zeros((4, 64, 64), np.uint8))
    assert error.value.filename == str(store.shard_file(0))


def test_temporary_files_of_killed_writers_are_of_no_use(store: LabelStore) -> None:
    used = store.shard_file(0)
    left = used.with_name(f".{used.name}.1-1.tmp")
    left.touch()
    assert unused_files(store.path, {0, 1}) == [left]
    unused = unused_files(store.path, set())
    assert {used.parents[1], store.shard_file(0, "confidence").parents[1]} <= {*unused}
