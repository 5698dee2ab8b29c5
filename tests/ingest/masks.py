"""Label files of every kind, and how ingest reads one."""

import io
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.config.vocabulary import Vocabulary
from pipeline.images.limits import Limits
from pipeline.records.rows import ImageRow
from stages.ingest.scan import Reading, ScanResult, scan
from stages.labels.images import read_mask
from tests.conftest import VOCABULARY

IDS = np.zeros((48, 64), np.uint8)
IDS[10:20, 10:20], IDS[30:40, 30:50], IDS[:2] = 1, 2, 255
COLORS = np.zeros((256, 3), np.uint8)
COLORS[1], COLORS[2], COLORS[255] = (255, 0, 0), (0, 0, 255), (224, 224, 192)
SCHEMES = {
    "tens": {0: "background", 10: "disc", 20: "box", 255: "ignore"},
    "rest": {10: "disc", "*": "background"},
    "rest of colors": {"#ff0000": "disc", "*": "background"},
    "own": {"#000000": "background", "#ff0000": "box", "#0000ff": "disc", "#e0e0c0": "ignore"},
}
Keys = dict[str, Any]
Scan = Callable[..., ScanResult]
Ingest = Callable[..., CompletedProcess[str]]


def vocabulary(**keys: Any) -> Vocabulary:
    return Vocabulary.model_validate({**VOCABULARY, "label_schemes": SCHEMES, **keys})


def exif(orientation: int | None) -> Keys:
    found = Image.Exif()
    if orientation is not None:
        found[0x0112] = orientation
    return {"exif": found}


def grey(ids: np.ndarray[Any, Any] = IDS) -> Image.Image:
    return Image.fromarray(ids)


def palette_of(colors: np.ndarray[Any, Any]) -> Image.Image:
    image = grey()
    image.putpalette(colors.tobytes())
    return image


def in_colors(ids: np.ndarray[Any, Any] = IDS) -> Image.Image:
    return Image.fromarray(COLORS[ids])


def encoded(image: Image.Image, file_format: str = "PNG", **keys: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **keys)
    return buffer.getvalue()


@pytest.fixture
def scan_one(tmp_path: Path) -> Scan:
    """Scans an image with this label file: ``scan_one(mask, scheme=None)``."""

    def scan_one(
        mask: Image.Image | bytes,
        scheme: str | None = None,
        *,
        size: tuple[int, int] = (64, 48),
        turn: int | None = None,
        vocabulary: Vocabulary = vocabulary(),  # noqa: B008 - it cannot change
    ) -> ScanResult:
        Image.new("RGB", size).save(tmp_path / "image.jpg", **exif(turn))
        content = mask if isinstance(mask, bytes) else encoded(mask)
        (tmp_path / "mask.png").write_bytes(content)
        names = ("problem", "mask_stamp", "caption", "url")
        entry: Keys = {**dict.fromkeys(names), "scheme": scheme, "source": "x", "role": "labeled"}
        entry |= {"image": str(tmp_path / "image.jpg"), "mask": str(tmp_path / "mask.png")}
        entry |= {"row": 0, "present": True, "stamp": "3:4"}
        [result] = scan([entry], {}, Reading(vocabulary, Limits(), {}))
        return result

    return scan_one


def assert_read(result: ScanResult, expected: np.ndarray[Any, Any] = IDS) -> ImageRow:
    """Checks that ingest accepts the label file, and that later stages read these class ids."""
    assert result.problem is None
    assert result.row["mask_class_ids"] == [int(i) for i in np.unique(expected) if i != 255]
    np.testing.assert_array_equal(read_mask(result.row, vocabulary()), expected)
    return result.row
