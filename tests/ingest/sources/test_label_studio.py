"""Label Studio's JSON export, drawn and broken."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import DataError
from tests.ingest.sources.annotated import (
    HEIGHT,
    PENTAGON,
    TRIANGLE,
    WIDTH,
    Build,
    add_image,
    assert_close,
    build,
    drawn,
    filled,
    problems,
    write_json,
)

__all__ = ["build"]
KEYS = {"annotations": "export.json", "images": "images"}
SMALL = [
    *(0, 0, 0, 60, 57, 27, 254, 23, 0, 3, 254, 16, 0, 32, 0, 255, 132, 0, 8, 0, 63, 225, 0, 2, 3),
    *(9, 128, 0, 2, 0, 16, 0, 96, 127, 128),
]
"""What `encode_rle` of label_studio_sdk 2.1.2 makes of 5 x 3 pixels: `SMALL_PIXELS`."""
SMALL_PIXELS = [[0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 1]]
SEVERAL = "tasks with several annotations, of which the ground truth or the newest counts"
Region = dict[str, Any]


def percents(polygon: list[float]) -> list[list[float]]:
    pairs = zip(polygon[::2], polygon[1::2], strict=True)
    return [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in pairs]


def region(
    kind: str, label: str | None = "car", more: Region | None = None, **value: Any
) -> Region:
    labels = {} if label is None else {kind: [label]}
    about = {"id": "x", "from_name": "label", "to_name": "image", "type": kind}
    size = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    return {**about, **size, "value": {**value, **labels}, **(more or {})}


def polygon(corners: list[float], label: str | None = "car", **more: Any) -> Region:
    return region("polygonlabels", label, more, points=percents(corners), closed=True)


def task(*regions: Any, image: str = "/data/upload/1/0a1b2c3d-a.jpg", **more: Any) -> Any:
    annotation = {"id": 1, "was_cancelled": False, "result": [*regions]}
    return {"id": 1, "data": {"image": image}, "annotations": [annotation], **more}


@pytest.fixture
def export(tmp_path: Path) -> Path:
    add_image(tmp_path / "images/a.jpg")
    return tmp_path / "export.json"


def test_polygons_are_those_of_opencv_and_later_ones_lie_above(build: Build, export: Path) -> None:
    write_json(export, [task(polygon(PENTAGON), polygon(TRIANGLE, "Traffic light"))])
    expected = np.where(filled(TRIANGLE), 2, filled(PENTAGON)).astype(np.uint8)
    assert_close(drawn(build("label_studio", **KEYS))["a.jpg"], expected)


def test_rectangles_and_ellipses(build: Build, export: Path) -> None:
    box = region("rectanglelabels", x=50, y=25, width=25, height=50, rotation=0)
    # Turned around its top left corner, in pixels.
    turned = region(
        "rectanglelabels", "traffic light", x=25, y=50, width=25, height=25, rotation=90
    )
    write_json(export, [task(box, turned)])
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[12:36, 32:48] = 1
    expected[24:40, 4:16] = 2
    np.testing.assert_array_equal(drawn(build("label_studio", **KEYS))["a.jpg"], expected)
    oval = region("ellipselabels", x=50, y=50, radiusX=25, radiusY=25, rotation=0)
    write_json(export, [task(oval)])
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    inside = ((rows - 24) / 12) ** 2 + ((columns - 32) / 16) ** 2 < 1
    assert_close(drawn(build("label_studio", **KEYS))["a.jpg"], inside.astype(np.uint8))


def brush(runs: Any, **size: int) -> Region:
    return region("brushlabels", more=dict(size), rle=runs, format="rle")


def test_brushes_are_those_of_the_sdk(build: Build, export: Path, tmp_path: Path) -> None:
    add_image(tmp_path / "images/a.png", size=(5, 3))
    regions = brush(SMALL, original_width=5, original_height=3)
    write_json(export, [task(regions, image="/data/local-files/?d=images/a.png")])
    mask = drawn(build("label_studio", **KEYS))["a.png"]
    np.testing.assert_array_equal(mask, SMALL_PIXELS)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (SMALL[:-3], "its run lengths are cut off"),
        ([*SMALL[:7], *[255] * 9], "its run lengths are damaged"),
        ([255, 255, 255, 255, *SMALL[4:]], "4,294,967,295 values of 8 bits, but 5 x 3 pixels"),
        ([256], "its run lengths are no bytes"),
        ("x", "no run lengths"),
        ([], "no run lengths"),
    ],
)
def test_broken_brushes(build: Build, export: Path, runs: Any, message: str) -> None:
    write_json(export, [task(brush(runs, original_width=5, original_height=3))])
    with pytest.raises(DataError, match=message) as error:
        build("label_studio", **KEYS).list()
    assert error.value.where == f"{export}: task 1, region 1"


def test_the_annotation_that_counts(build: Build, export: Path, tmp_path: Path) -> None:
    names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"]
    for name in names[1:]:
        add_image(tmp_path / "images" / name)
    old = {"result": [polygon(TRIANGLE)], "updated_at": "2024-01-01T00:00:00Z"}
    new = {"result": [polygon(PENTAGON)], "updated_at": "2024-05-01T00:00:00Z"}
    cancelled = {**new, "updated_at": "2025-01-01", "was_cancelled": True}
    answers = [[new, old], [{**old, "ground_truth": True}, new], [cancelled], [], [{"result": []}]]
    tasks = [task(image=n, annotations=a) for n, a in zip(names, answers, strict=True)]
    write_json(export, tasks)
    source = build("label_studio", **KEYS)
    masks = drawn(source)
    assert [*masks] == ["a.jpg", "b.jpg", "e.jpg"]
    assert_close(masks["a.jpg"], filled(PENTAGON))
    assert_close(masks["b.jpg"], filled(TRIANGLE))
    assert not masks["e.jpg"].any()
    assert "2 of 5 images without annotations passed over" in source.remarks
    assert f"{SEVERAL}: 2" in source.remarks


def test_what_is_passed_over_is_counted(build: Build, export: Path, tmp_path: Path) -> None:
    add_image(tmp_path / "images/other.jpg")
    regions = [
        {"type": "choices", "value": {"choices": ["day"]}},
        polygon(PENTAGON, None),
        polygon(TRIANGLE, hidden=True),
    ]
    write_json(export, [task(*regions)])
    source = build("label_studio", **KEYS)
    assert_close(drawn(source)["a.jpg"], filled(TRIANGLE, 255))
    for text in (
        "results without an area or a label, passed over (choices): 1",
        "regions without a label, passed over: 1",
        "1 image of no annotated task passed over",
    ):
        assert text in source.remarks


@pytest.mark.parametrize(
    "image",
    [
        "/data/upload/7/0a1b2c3d-a.jpg",
        "/data/local-files/?d=photos%2Fimages%2Fa.jpg",
        "http://host:8080/bucket/a.jpg?token=secret",
        "s3://bucket/photos/a.jpg",
        "a.jpg",
        "C:\\photos\\a.jpg",
        "photos/a.jpg",
    ],
)
def test_where_images_are(build: Build, export: Path, image: str) -> None:
    write_json(export, [task(image=image)])
    assert [*drawn(build("label_studio", **KEYS))] == ["a.jpg"]
    write_json(export, [{**task(), "data": {"id": "7", "photo": image}}])
    assert [*drawn(build("label_studio", **KEYS))] == ["a.jpg"]


def test_names_may_not_lead_out_of_the_folder(build: Build, export: Path, tmp_path: Path) -> None:
    add_image(tmp_path / "b.jpg")
    write_json(export, [task(), task(image="../b.jpg")])
    assert problems(build("label_studio", **KEYS))["b.jpg"] == f"leads out of {tmp_path}/images"


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ([polygon([1, 2, 3, 4])], "task 1, region 1: a polygon of 2 points"),
        ([polygon(PENTAGON), polygon([1, 2, 3, 4, 5, float("nan")])], "region 2: the coordinate"),
        ([polygon(PENTAGON, original_width=0)], "the size 0 x 48"),
        ([polygon(PENTAGON), polygon(PENTAGON, original_width=65)], "its image is 65 x 48, that"),
        ([polygon(PENTAGON, image_rotation=90)], "drawn on an image turned by 90 degrees"),
        ([region("rectanglelabels", x=1, y=2, width=3)], "no `height`; write x, y, width, height"),
        ([region("polygonlabels", None, points=[], polygonlabels=["a", "b"])], "2 labels"),
        (["x"], "no region"),
    ],
)
def test_broken_regions_name_their_place(
    build: Build, export: Path, regions: Any, message: str
) -> None:
    write_json(export, [task(*regions)])
    with pytest.raises(DataError, match=message):
        build("label_studio", **KEYS).list()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"tasks": []}, 'no list of tasks; export the project as "JSON"'),
        ([{"image": "a.jpg", "label": []}], "task 1: a task without `data`"),
        ([{"data": {"image": "a.jpg"}}], "task 1: a task without `annotations`"),
        ([{"data": {"id": 3}, "annotations": []}], "task 1: its data names no image"),
        ([task(annotations=[3])], "an annotation without `result`"),
        ([], "no annotated image"),
    ],
)
def test_broken_files(build: Build, export: Path, value: Any, message: str) -> None:
    write_json(export, value)
    with pytest.raises(DataError, match=message) as error:
        build("label_studio", **KEYS).list()
    assert error.value.where.startswith(str(export))


def test_damaged_json(build: Build, export: Path) -> None:
    for text in ("[" * 100_000, "[1, ", '[{"a": ' + "[" * 100_000, "[] []"):
        export.write_text(text)
        with pytest.raises(DataError, match=r"export.json: line 1: no valid JSON"):
            build("label_studio", **KEYS).list()


def test_sizes_are_of_the_upright_image(build: Build, export: Path, tmp_path: Path) -> None:
    add_image(tmp_path / "images/a.jpg", 6, (HEIGHT, WIDTH))
    write_json(export, [task(polygon(PENTAGON))])
    assert_close(drawn(build("label_studio", **KEYS))["a.jpg"], filled(PENTAGON))
