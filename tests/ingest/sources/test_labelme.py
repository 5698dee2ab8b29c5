"""LabelMe's files beside images, drawn and broken."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

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


def pairs(polygon: list[float]) -> list[list[float]]:
    return [[x, y] for x, y in zip(polygon[::2], polygon[1::2], strict=True)]


def shape(points: Any, label: str = "car", kind: str = "polygon", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, **more}


def labelme(*shapes: Any, image: str = "a.jpg", **more: Any) -> dict[str, Any]:
    about = {"version": "5.5.0", "flags": {}, "imagePath": image, "imageData": "aGVsbG8="}
    return {**about, "shapes": shapes, "imageHeight": HEIGHT, "imageWidth": WIDTH, **more}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    add_image(tmp_path / "images/a.jpg")
    return tmp_path / "images"


def test_polygons_are_those_of_opencv_and_later_ones_lie_above(build: Build, folder: Path) -> None:
    shapes = shape(pairs(PENTAGON)), shape(pairs(TRIANGLE), "traffic light")
    write_json(folder / "a.json", labelme(*shapes))
    expected = np.where(filled(TRIANGLE), 2, filled(PENTAGON)).astype(np.uint8)
    assert_close(drawn(build("labelme", images="images"))["a.jpg"], expected)


def test_other_shapes(build: Build, folder: Path) -> None:
    pixels = np.zeros((10, 12), np.uint8)
    pixels[2:8, 3:9] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    png = base64.b64encode(buffer.getvalue()).decode()
    shapes = [
        shape([[30, 20], [10, 5]], kind="rectangle"),
        shape([[40, 10], [52, 20]], "traffic light", "mask", mask=png),
        shape([[1, 1], [2, 2]], kind="line"),
    ]
    write_json(folder / "a.json", labelme(*shapes))
    source = build("labelme", images="images")
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[5:20, 10:30] = 1
    expected[12:18, 43:49] = 2
    np.testing.assert_array_equal(drawn(source)["a.jpg"], expected)
    assert "shapes without an area, passed over (line): 1" in source.remarks


def test_circles(build: Build, folder: Path) -> None:
    write_json(folder / "a.json", labelme(shape([[32, 24], [32, 36]], kind="circle")))
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    inside = (rows - 24) ** 2 + (columns - 32) ** 2 < 12**2
    assert_close(drawn(build("labelme", images="images"))["a.jpg"], inside.astype(np.uint8))


def test_images_without_a_file_are_passed_over(build: Build, folder: Path) -> None:
    add_image(folder / "b.jpg")
    (folder / "notes.md").touch()
    write_json(folder / "a.json", labelme())
    source = build("labelme", images="images")
    assert [*drawn(source)] == ["a.jpg"]
    assert "1 of 2 images without annotations passed over" in source.remarks
    assert "1 file passed over: .md 1" in source.remarks


def test_image_path_or_name_tells_the_image(build: Build, folder: Path, tmp_path: Path) -> None:
    for name in ("b.jpg", "c.jpg", "c.png", "sub/d.jpg"):
        add_image(folder / name)
    jsons = tmp_path / "jsons"
    write_json(jsons / "1.json", labelme(image="..\\images\\a.jpg"))
    write_json(jsons / "b.json", labelme(image="C:/photos/renamed.jpg"))
    write_json(jsons / "c.json", labelme(image="../images/c.png"))
    write_json(jsons / "sub/d.json", labelme(image=""))
    write_json(jsons / "coco.json", {"images": []})
    source = build("labelme", images="images", annotations="jsons")
    assert [*drawn(source)] == ["a.jpg", "b.jpg", "c.png", "d.jpg"]
    assert "JSON files of other tools, passed over: 1" in source.remarks


def test_files_without_an_image_and_two_of_one_image(build: Build, folder: Path) -> None:
    write_json(folder / "a.json", labelme())
    write_json(folder / "other.json", labelme())
    for name in ("x.json", "y.json"):
        write_json(folder / name, labelme(image="x.jpg"))
    with pytest.raises(DataError) as error:
        build("labelme", images="images").list()
    texts = " ".join(map(str, (error.value, *error.value.others)))
    assert f"2 annotation files without an image, first: {folder}/x.json; add the image" in texts
    assert "other.json: 1 image is listed twice, first: a.jpg" in texts


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (shape([[1, 2], [3, 4]]), r"shapes\[0\]: a polygon of 2 points; give it at least 3"),
        (shape([[1, 2], [3, 4], [5]]), "its corners are not pairs"),
        (shape([[1, 2], [3, 4], [5, None]]), "the coordinate 'None'"),
        (shape([[1, 2], [3, 4], [5, True]]), "the coordinate 'True'"),
        (shape(None), "its points are no list"),
        (shape([[1, 2]], kind="rectangle"), "it does not have two points"),
        (shape([[1, 2], "x"], kind="circle"), "its points are no pairs"),
        (shape([[1, 2], [3, 4]], kind="mask", mask="%"), "cannot read its mask: no base64"),
        (shape([[1, 2], [3, 4]], kind="mask", mask="aGVsbG8="), "cannot read its mask"),
        (shape([[1, 2], [3, 4]], kind="star"), "unknown shape_type 'star'; draw it as a polygon"),
        ({"points": []}, "a shape without a label"),
        (3, "a shape without a label"),
    ],
)
def test_broken_shapes_name_their_place(
    build: Build, folder: Path, item: Any, message: str
) -> None:
    write_json(folder / "a.json", labelme(item))
    with pytest.raises(DataError, match=message) as error:
        build("labelme", images="images").list()
    assert error.value.where.startswith(f"{folder}/a.json")


def test_broken_files(build: Build, folder: Path) -> None:
    add_image(folder / "b.jpg")
    (folder / "a.json").write_text("{" * 100_000)
    (folder / "b.json").write_text('{"shapes": ' + "[" * 100_000)
    with pytest.raises(DataError) as error:
        build("labelme", images="images").list()
    texts = [str(each) for each in (error.value, *error.value.others)]
    assert "a.json: line 1: no valid JSON" in texts[0]
    assert "b.json: line 1: no valid JSON: arrays or objects are nested too deeply" in texts[1]


def test_a_folder_without_json(build: Build, folder: Path) -> None:
    with pytest.raises(DataError, match=r"the folder has no JSON file; save LabelMe's"):
        build("labelme", images="images").list()
    with pytest.raises(DataError, match=r"no such folder"):
        build("labelme", images="images", annotations="nothing").list()


def test_sizes(build: Build, folder: Path) -> None:
    for name in ("b.jpg", "c.jpg"):
        add_image(folder / name)
    write_json(folder / "a.json", labelme(imageWidth=65))
    write_json(folder / "b.json", labelme(image="b.jpg", imageWidth=None, imageHeight=None))
    add_image(folder / "c.jpg", 6, (HEIGHT, WIDTH))
    write_json(folder / "c.json", labelme(shape(pairs(PENTAGON)), image="c.jpg"))
    source = build("labelme", images="images")
    found = problems(source)
    assert str(found["a.jpg"]).startswith("its annotations are of 65 x 48 pixels, it has 64 x 48")
    assert (found["b.jpg"], found["c.jpg"]) == (None, None)
    assert_close(drawn(source)["c.jpg"], filled(PENTAGON))
    write_json(folder / "a.json", labelme(imageWidth=0))
    with pytest.raises(DataError, match=r"a.json: the size 0 x 48; write width and height"):
        build("labelme", images="images").list()
