import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config.class_entry import ClassEntry
from pipeline.config.vocabulary import Vocabulary
from pipeline.errors import DataError
from pipeline.images.faults import UnreadableImageError
from pipeline.images.images import content_id
from pipeline.records.rows import ImageRow
from stages.labels.images import (
    fitted_mask,
    fitted_pixels,
    read_ahead,
    read_mask,
    read_pixels,
)

TENS = {"10": "car", "20": "ignore"}
VOCABULARY = Vocabulary(
    name="test",
    classes=(ClassEntry(name="sky", color="#000000"), ClassEntry(name="car", color="#ffffff")),
    label_schemes={"tens": TENS},
)
Reader = Callable[[ImageRow], object]
IMAGE_READERS: dict[str, Reader] = {
    "pixels": read_pixels,
    "fitted pixels": lambda row: fitted_pixels(row, 6),
}
MASK_READERS: dict[str, Reader] = {
    "mask": lambda row: read_mask(row, VOCABULARY),
    "fitted mask": lambda row: fitted_mask(row, 4, 6, VOCABULARY),
}
READERS = {**IMAGE_READERS, **MASK_READERS}


@pytest.fixture
def row(tmp_path: Path) -> ImageRow:
    """An images row with its files."""
    image, mask = tmp_path / "image.png", tmp_path / "mask.png"
    Image.new("RGB", (3, 2), (1, 2, 3)).save(image)
    Image.fromarray(np.array([[10, 20, 10]] * 2, np.uint8)).save(mask)
    return {
        "uri": str(image),
        "image_id": content_id(image.read_bytes()),
        "mask_uri": str(mask),
        "mask_id": content_id(mask.read_bytes()),
        "label_scheme": "tens",
    }


def file_of(row: ImageRow, reader: str) -> Path:
    """The file that a reader reads."""
    uri = row["uri"] if reader in IMAGE_READERS else row["mask_uri"]
    assert uri is not None
    return Path(uri)


def test_pixels_and_masks_come_from_the_files(row: ImageRow) -> None:
    assert read_pixels(row).tolist() == [[[1, 2, 3]] * 3] * 2
    assert read_mask(row, VOCABULARY).tolist() == [[1, 255, 1]] * 2


def test_fitted_ones_have_the_size_that_was_asked_for(row: ImageRow) -> None:
    assert fitted_pixels(row, 6).tolist() == [[[1, 2, 3]] * 6] * 4
    assert fitted_mask(row, 4, 6, VOCABULARY).tolist() == [[1, 1, 255, 255, 1, 1]] * 4


@pytest.mark.parametrize("reader", ["pixels", "mask"])
@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"no image")])
def test_a_file_that_went_bad_after_ingest_is_an_error_that_names_it(
    row: ImageRow, reader: str, spoil: Callable[[Path], object]
) -> None:
    spoil(file := file_of(row, reader))
    with pytest.raises(DataError, match=rf"^{file}: .*`maskmill run ingest`"):
        READERS[reader](row)


@pytest.mark.parametrize("reader", ["fitted pixels", "fitted mask"])
@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"no image")])
def test_for_labels_it_is_the_reason_of_a_row(
    row: ImageRow, reader: str, spoil: Callable[[Path], object]
) -> None:
    spoil(file_of(row, reader))
    reason = "(cannot be read: No such file|changed since `maskmill run ingest` read it)"
    prefix = "label file: " if reader == "fitted mask" else ""
    with pytest.raises(UnreadableImageError, match=f"^{prefix}{reason}"):
        READERS[reader](row)


@pytest.mark.parametrize("reader", READERS)
def test_other_bytes_than_ingest_read_are_refused(row: ImageRow, reader: str) -> None:
    file = file_of(row, reader)
    Image.fromarray(np.full((2, 3), 20, np.uint8)).save(file)
    with pytest.raises((DataError, UnreadableImageError), match="changed since"):
        READERS[reader](row)
    del row["image_id"], row["mask_id"]
    READERS[reader](row)  # nothing to compare with


def test_an_image_without_a_label_file_cannot_have_its_mask_fitted(row: ImageRow) -> None:
    row["mask_uri"] = None
    with pytest.raises(UnreadableImageError, match=r"^this image has no label file$"):
        fitted_mask(row, 4, 6, VOCABULARY)


def test_rows_are_read_ahead_in_order_and_bad_ones_are_their_error(row: ImageRow) -> None:
    missing: ImageRow = {**row, "uri": f"{row['uri']}.none"}
    first, second, third = read_ahead(read_width, [row, missing, row])
    assert (first, third) == (3, 3)
    assert str(second) == "cannot be read: No such file or directory"


def read_width(row: ImageRow) -> int:
    width: int = fitted_pixels(row, 3).shape[1]
    return width


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core reads one row at a time")
def test_rows_are_read_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=60)  # passes only if two rows wait at the same time

    def read(row: int) -> int:
        both.wait()
        return row

    assert list(read_ahead(read, [1, 2])) == [1, 2]


def test_rows_are_not_read_far_ahead() -> None:
    """Decoded images may be large: not all of a shard may wait for the network."""
    started: list[int] = []

    def read(row: int) -> int:
        started.append(row)
        return row

    results = read_ahead(read, range(1000))
    assert next(results) == 0
    assert len(started) <= 2 * (os.cpu_count() or 1)
    assert list(results) == list(range(1, 1000))


def test_other_errors_are_raised() -> None:
    def read(row: int) -> int:
        raise DataError("gone", where="here", fix="put it back")

    with pytest.raises(DataError, match="gone"):
        list(read_ahead(read, [1]))
