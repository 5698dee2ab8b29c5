from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.config.vocabulary import ClassEntry, Vocabulary
from pipeline.errors import DataError
from pipeline.images.images import content_id
from stages.evaluate.inference import read_pixels
from stages.labels.images import read_truth

TENS = {"10": "car", "20": "ignore"}
VOCABULARY = Vocabulary(
    name="test",
    classes=(ClassEntry(name="sky", color="#000000"), ClassEntry(name="car", color="#ffffff")),
    label_schemes={"tens": TENS},
)


@pytest.fixture
def row(tmp_path: Path) -> dict[str, Any]:
    """An images row with its files."""
    Image.new("RGB", (3, 2), (1, 2, 3)).save(tmp_path / "image.png")
    Image.fromarray(np.array([[10, 20, 10]] * 2, np.uint8)).save(tmp_path / "mask.png")
    row: dict[str, Any] = {"label_scheme": "tens"}
    for key, name in (("uri", "image"), ("mask_uri", "mask")):
        path = tmp_path / f"{name}.png"
        row |= {key: str(path), f"{name}_id": content_id(path.read_bytes())}
    return row


def test_pixels_and_truth_come_from_the_files(row: dict[str, Any]) -> None:
    assert read_pixels(row).tolist() == [[[1, 2, 3]] * 3] * 2
    assert read_truth(row, VOCABULARY).tolist() == [[1, 255, 1]] * 2


@pytest.mark.parametrize("kind", ["uri", "mask_uri"])
@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"no image")])
def test_a_file_that_went_bad_after_ingest_is_named(
    row: dict[str, Any], kind: str, spoil: Callable[[Path], object]
) -> None:
    spoil(Path(row[kind]))
    with pytest.raises(DataError, match=rf"{row[kind]}: .*`maskmill run ingest`"):
        read_pixels(row) if kind == "uri" else read_truth(row, VOCABULARY)
