from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.config.vocabulary import Vocabulary
from pipeline.errors import DataError
from pipeline.images.images import content_id
from pipeline.images.limits import Limits
from pipeline.records.rows import ImageRow
from stages.ingest.scan import Reading, scan

VOCABULARY = Vocabulary.model_validate(
    {
        "name": "shapes",
        "classes": [
            {"name": "background", "color": "#000000"},
            {"name": "disc", "color": "#ff0000"},
            {"name": "box", "color": "#0000ff"},
        ],
        "label_schemes": {
            "voc": {0: "background", 5: "disc", 15: "box", 255: "ignore"},
            "coco": {3: "disc", 200: "box", 0: "ignore", "*": "background"},
            "wide": {7: "background", 40000: "disc", 65535: "ignore"},
            "colors": {"#000000": "background", "#80ff00": "disc", "#0000ff": "box"},
        },
    }
)
READING = Reading(VOCABULARY, Limits(), {})
Scan = Callable[..., tuple[ImageRow, list[DataError]]]


def entry(image: Path, mask: Path | None = None, **columns: Any) -> dict[str, Any]:
    """A row of the layout."""
    names = ("scheme", "problem", "mask_stamp", "caption", "url")
    return {
        **dict.fromkeys(names),
        "stamp": "3:4",
        "image": str(image),
        "mask": None if mask is None else str(mask),
        "source": "web",
        "role": "labeled",
        "row": 5,
        "present": True,
        **columns,
    }


@pytest.fixture
def scan_one(tmp_path: Path) -> Scan:
    """Scans ``image.png`` with, maybe, label pixels: ``scan_one(labels, scheme="voc")``."""
    Image.new("RGB", (4, 3), "red").save(tmp_path / "image.png")

    def scan_one(
        labels: Image.Image | None = None, scheme: str | None = None, image: str = "image.png"
    ) -> tuple[ImageRow, list[DataError]]:
        mask = None if labels is None else tmp_path / "mask.png"
        if labels is not None and mask is not None:
            labels.save(mask)
        there = {} if (tmp_path / image).exists() else {"stamp": None}
        one = entry(tmp_path / image, mask, scheme=scheme, **there)
        [scanned] = scan([one], {}, READING)
        return scanned.row, [scanned.problem] if scanned.problem else []

    return scan_one


def grey(values: list[int], dtype: type = np.uint8) -> Image.Image:
    """A label image of 4 x 3 pixels that starts with these values and goes on with the last."""
    return Image.fromarray(np.array(values + values[-1:] * (12 - len(values)), dtype).reshape(3, 4))


def test_a_good_image_becomes_a_row(scan_one: Scan, tmp_path: Path) -> None:
    row, problems = scan_one()
    assert problems == []
    path = tmp_path / "image.png"
    assert row == {
        "image_id": content_id(path.read_bytes()),
        "uri": str(path),
        "source": "web",
        "role": "labeled",
        "mask_uri": None,
        "label_scheme": None,
        "width": 4,
        "height": 3,
        "format": "PNG",
        "row": 5,
        "status": "ok",
        "stamp": "3:4",
        "mask_stamp": None,
        "caption": None,
        "url": None,
    }


def test_the_size_is_that_of_the_upright_image(scan_one: Scan, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 3)).save(tmp_path / "image.jpg", exif=exif)
    row, _ = scan_one(image="image.jpg")
    assert (row["width"], row["height"], row["format"]) == (3, 4, "JPEG")


def palette_of(values: list[int]) -> Image.Image:
    image = grey(values)
    image.putpalette([channel for i in range(256) for channel in (i, 255 - i, i // 2)])
    return image


def colors_of(values: list[str]) -> Image.Image:
    image = Image.new("RGB", (4, 3), values[-1])
    for column, value in enumerate(values):
        image.putpixel((column, 0), tuple(bytes.fromhex(value[1:])))
    return image


GOOD_LABELS: dict[str, tuple[Image.Image, str | None, list[int]]] = {
    "class ids": (grey([0, 2, 255]), None, [0, 2]),
    "only ignore": (grey([255]), None, []),
    "a VOC palette": (palette_of([255, 15, 0, 5]), "voc", [0, 1, 2]),
    "ids with gaps": (grey([0, 3, 200]), "coco", [1, 2]),
    "other ids": (grey([0, 3, 90]), "coco", [0, 1]),
    "16-bit ids": (grey([7, 40000, 65535], np.uint16), "wide", [0, 1]),
    "colours": (colors_of(["#80ff00", "#0000ff", "#000000"]), "colors", [0, 1, 2]),
}


@pytest.mark.parametrize("kind", GOOD_LABELS)
def test_labels_are_read_by_their_scheme(kind: str, scan_one: Scan, tmp_path: Path) -> None:
    labels, scheme, class_ids = GOOD_LABELS[kind]
    row, problems = scan_one(labels, scheme)
    assert problems == []
    assert row["status"] == "ok"
    assert row["mask_class_ids"] == class_ids
    assert row["label_scheme"] == scheme
    assert row["mask_id"] == content_id((tmp_path / "mask.png").read_bytes())


WRONG_LABELS: dict[str, tuple[Image.Image, str | None, str]] = {
    "other size": (
        Image.new("L", (3, 4)),
        None,
        "the mask is 3 x 4 pixels but its image {image} is 4 x 3; use a mask of the same size",
    ),
    "unknown id": (
        grey([0, 1, 7]),
        None,
        "class id 7 is not in the vocabulary; "
        "use class ids 0 to 2 and 255 (= ignore), "
        "or set `label_scheme` of the source to a scheme that has it",
    ),
    "many unknown ids": (
        grey([10, 11, 12, 13, 14, 15, 16]),
        None,
        "class id 10, 11, 12, 13, 14, ... is not in the vocabulary; "
        "use class ids 0 to 2 and 255 (= ignore), "
        "or set `label_scheme` of the source to a scheme that has it",
    ),
    "id unknown to the scheme": (
        grey([5, 6]),
        "voc",
        "class id 6 is not in the vocabulary; add it to label_schemes.voc of vocabulary 'shapes'",
    ),
    "colours without a scheme": (
        colors_of(["#80ff00"]),
        None,
        "colour #80ff00 is not in the vocabulary; "
        "use class ids 0 to 2 and 255 (= ignore), or the colours of the classes, "
        "or set `label_scheme` of the source to a scheme that has it",
    ),
    "colour unknown to the scheme": (
        colors_of(["#80ff00", "#102030"]),
        "colors",
        "colour #102030 is not in the vocabulary; "
        "add it to label_schemes.colors of vocabulary 'shapes'",
    ),
}


@pytest.mark.parametrize("kind", WRONG_LABELS)
def test_labels_that_do_not_fit_are_an_error(kind: str, scan_one: Scan, tmp_path: Path) -> None:
    labels, scheme, text = WRONG_LABELS[kind]
    _, problems = scan_one(labels, scheme)
    text = text.replace("{image}", f"{tmp_path}/image.png")
    assert [str(problem) for problem in problems] == [f"{tmp_path}/mask.png: {text}"]


def test_an_unreadable_label_file_is_an_error(scan_one: Scan, tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_text("no image")
    one = entry(tmp_path / "image.png", tmp_path / "mask.png")
    [scanned] = scan([one], {}, READING)
    assert [str(scanned.problem)] == [
        f"{tmp_path}/mask.png: cannot read the label file: not an image of a known format; "
        "replace it with a label image, e.g. a PNG of class ids"
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "the file is empty"),
        (b"<html>", "an HTML page, which is not decoded"),
        (b"text", "not an image of a known format"),
        (b"P6 4 3 255\n" + bytes(9), "damaged: "),
    ],
)
def test_an_unreadable_image_is_a_row_with_the_reason(
    content: bytes | None, reason: str, scan_one: Scan, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "bad.png").write_bytes(content)
    row, problems = scan_one(image="bad.png")
    assert problems == []
    assert row["status"] == "rejected"
    assert str(row["error_message"]).startswith(reason)
    assert row.get("width") is None
    assert ("image_id" in row) == bool(content)


def test_a_problem_of_the_listing_is_a_row_with_the_reason(tmp_path: Path) -> None:
    Image.new("RGB", (4, 3)).save(tmp_path / "image.png")
    one = entry(tmp_path / "image.png", problem="leads out of it")
    [scanned] = scan([one], {}, READING)
    assert not scanned.is_failed
    row = scanned.row
    assert (row["status"], row["error_message"]) == ("rejected", "leads out of it")


def test_a_vanished_image_keeps_its_columns(scan_one: Scan, tmp_path: Path) -> None:
    before, _ = scan_one(grey([0, 1]))
    gone = entry(tmp_path / "image.png", Path(str(before["mask_uri"])), present=False)
    [after] = scan([gone], {5: before}, READING)
    assert after.problem is None
    assert after.row == {**before, "status": "gone", "error_message": "no longer in the source"}


def test_rows_come_in_the_order_of_the_entries(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(20)]
    for number, path in enumerate(paths):
        Image.new("L", (number + 1, 3)).save(path)
    entries = [entry(path, row=number) for number, path in enumerate(paths)]
    rows = [one.row for one in scan(entries, {}, READING)]
    assert [row["width"] for row in rows] == list(range(1, 21))
    assert [row["row"] for row in rows] == list(range(20))
