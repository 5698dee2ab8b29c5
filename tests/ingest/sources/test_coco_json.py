"""COCO's instance annotations, compared with what pycocotools reads."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco
from pycocotools.coco import COCO

from pipeline.errors import DataError
from tests.ingest.sources.annotated import (
    HEIGHT,
    PENTAGON,
    TRIANGLE,
    WIDTH,
    Build,
    add_image,
    build,
    drawn,
    filled,
    problems,
    vocabulary,
    write_json,
)

__all__ = ["build"]
KEYS = {"annotations": "instances.json", "images": "images"}
CATEGORIES = [{"id": 3, "name": "car"}, {"id": 10, "name": "Traffic Light"}]
Values = dict[str, Any]


def annotation(region: Any, category: int = 3, image: int = 1, **more: Any) -> Values:
    return {"image_id": image, "category_id": category, "segmentation": region, **more}


def instances(*annotations: Values, names: tuple[str, ...] = ("a.jpg",)) -> Values:
    images = [
        {"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT}
        for number, name in enumerate(names, start=1)
    ]
    own = [{"id": number, **one} for number, one in enumerate(annotations, start=1)]
    return {"info": {}, "images": images, "annotations": own, "categories": CATEGORIES}


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(*annotations: Values, names: tuple[str, ...] = ("a.jpg",), **more: Any) -> None:
        for name in names:
            add_image(tmp_path / "images" / name)
        write_json(tmp_path / "instances.json", {**instances(*annotations, names=names), **more})

    return write


def ellipse() -> Any:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (((columns - 30) / 20) ** 2 + ((rows - 22) / 15) ** 2 < 1).astype(np.uint8)


def test_pixels_are_those_of_pycocotools(build: Build, write: Any, tmp_path: Path) -> None:
    packed = coco.encode(np.asfortranarray(ellipse()))
    counts = [int(n) for n in np.diff(np.flatnonzero(np.diff(ellipse().ravel("F"))), prepend=-1)]
    counts.append(WIDTH * HEIGHT - sum(counts))
    regions = [
        [PENTAGON],
        [PENTAGON, [1.0, 1.0, 6.0, 1.0, 6.0, 6.0]],
        {"size": [HEIGHT, WIDTH], "counts": packed["counts"].decode()},
        {"size": [HEIGHT, WIDTH], "counts": counts},
    ]
    names = tuple(f"{number}.jpg" for number in range(len(regions)))
    write(*(annotation(each, image=n + 1) for n, each in enumerate(regions)), names=names)
    reader = COCO(tmp_path / "instances.json")
    masks = drawn(build("coco_json", **KEYS))
    assert [*masks] == [*names]
    for number, name in enumerate(names, start=1):
        [own] = reader.loadAnns(reader.getAnnIds(imgIds=number))
        np.testing.assert_array_equal(masks[name], reader.annToMask(own))


def test_smaller_areas_lie_over_larger_ones_and_crowds_are_ignored(
    build: Build, write: Any
) -> None:
    crowd = coco.encode(np.asfortranarray(np.ones((HEIGHT, WIDTH), np.uint8)))
    crowd = {"size": crowd["size"], "counts": crowd["counts"].decode()}
    write(annotation([TRIANGLE], 10), annotation([PENTAGON]), annotation(crowd, iscrowd=1))
    large, small = (
        coco.decode(coco.frPyObjects([each], HEIGHT, WIDTH))[..., 0].astype(bool)
        for each in (PENTAGON, TRIANGLE)
    )
    expected = np.full((HEIGHT, WIDTH), 255, np.uint8)
    expected[large] = 1
    expected[small] = 2
    np.testing.assert_array_equal(drawn(build("coco_json", **KEYS))["a.jpg"], expected)


def test_a_box_alone_is_ignored_and_an_image_without_annotations_is_background(
    build: Build, write: Any
) -> None:
    write(annotation([], bbox=[10, 5, 20, 10]), names=("a.jpg", "b.jpg"))
    source = build("coco_json", **KEYS)
    masks = drawn(source)
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[5:15, 10:30] = 255
    np.testing.assert_array_equal(masks["a.jpg"], expected)
    assert not masks["b.jpg"].any()
    assert "annotations with only a box, whose pixels are ignored: 1" in source.remarks


@pytest.mark.parametrize(
    ("rest", "expected"), [(None, 0), ("ignore", 255), ("traffic light", 2)], ids=str
)
def test_the_rest_is_a_class(build: Build, write: Any, rest: str | None, expected: int) -> None:
    write(annotation([PENTAGON]))
    mask = drawn(build("coco_json", rest=rest, **KEYS))["a.jpg"]
    assert {*np.unique(mask)} == {1, expected}


def test_without_a_class_background_the_rest_is_ignored(build: Build, write: Any) -> None:
    write(annotation([PENTAGON]))
    own = vocabulary(classes=[{"name": "car", "color": "#ff0000"}])
    keys = {"names": {"Traffic Light": "car"}, **KEYS}
    assert {*np.unique(drawn(build("coco_json", own, **keys))["a.jpg"])} == {0, 255}


def test_names_are_those_of_classes_concepts_or_mapped(build: Build, write: Any) -> None:
    names = ["AUTOMOBILE", "traffic light", "sky", "lorry", "tree"]
    categories = [{"id": number, "name": name} for number, name in enumerate(names)]
    corners = [
        [12.0 * n, 0.0, 12.0 * n + 12, 0.0, 12.0 * n + 12, 9.0, 12.0 * n, 9.0] for n in range(5)
    ]
    write(*(annotation([c], n) for n, c in enumerate(corners)), categories=categories)
    own = vocabulary(background="background", background_concepts=["tree"])
    mask = drawn(build("coco_json", own, names={"sky": None, "lorry": "car"}, **KEYS))["a.jpg"]
    assert [int(mask[4, 12 * n + 6]) for n in range(5)] == [1, 2, 255, 1, 0]
    assert mask[20, 20] == 0


def test_unknown_names_are_told_together(build: Build, write: Any) -> None:
    categories = [{"id": 3, "name": "lorry"}, {"id": 10, "name": "sky"}]
    regions = [annotation([PENTAGON]), annotation([PENTAGON]), annotation([PENTAGON], 10)]
    write(*regions, categories=categories)
    with pytest.raises(
        DataError, match=r"2 names of .* stand for no class: lorry \(2\), sky \(1\)"
    ) as error:
        build("coco_json", **KEYS).list()
    assert "names: {'lorry': CLASS, 'sky': CLASS}" in error.value.fix
    assert "background, car, traffic light" in error.value.fix
    with pytest.raises(DataError, match=r"lorry \(2\)$|lorry \(2\);") as error:
        build("coco_json", names={"sky": None}, **KEYS).list()


def test_keys_that_name_no_class_are_refused(build: Build, write: Any) -> None:
    write(annotation([PENTAGON]))
    with pytest.raises(
        Exception, match=r"names.sky: 'blue' is not a class; use one of: background"
    ) as error:
        build("coco_json", names={"sky": "blue"}, rest="black", **KEYS).list()
    assert "rest: 'black' is not a class" in str(error.value.others[0])  # type: ignore[attr-defined]


BROKEN: dict[str, tuple[Any, str]] = {
    "two points": ([[1, 2, 3, 4]], r"annotations\[0\].segmentation\[0\]: a polygon of 2 points"),
    "odd": ([[1, 2, 3, 4, 5, 6, 7]], "7 numbers are no pairs"),
    "not finite": ([[1, 2, 3, 4, float("nan"), 6]], "the coordinate 'nan'"),
    "huge": ([[1, 2, 3, 4, 1e300, 6]], "the coordinate '1e[+]300'"),
    "text": ([[1, 2, 3, 4, "x", 6]], "the coordinate 'x'"),
    "flat": ([1, 2, 3, 4, 5, 6], "no list of polygons"),
    "short": ({"size": [HEIGHT, WIDTH], "counts": [3, 5]}, "cover 8 pixels, but 64 x 48 are 3,072"),
    "long": ({"size": [HEIGHT, WIDTH], "counts": [10**30]}, "its run lengths are out of bounds"),
    "negative": ({"size": [HEIGHT, WIDTH], "counts": [-1, 3073]}, "out of bounds"),
    "other size": (
        {"size": [4, 4], "counts": [16]},
        "a mask of 4 x 4 pixels, its image is 64 x 48",
    ),
    "bomb": ({"size": [10**9, 10**9], "counts": [10**18]}, "at most 100,000,000 pixels are read"),
    "cut off": ({"size": [HEIGHT, WIDTH], "counts": "\x6f"}, "cut off"),
    "damaged": ({"size": [HEIGHT, WIDTH], "counts": "é"}, "damaged"),
    "no counts": ({"size": [HEIGHT, WIDTH]}, "no run lengths"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_regions_name_their_place(build: Build, write: Any, case: str) -> None:
    region, text = BROKEN[case]
    write(annotation(region), annotation([PENTAGON]))
    with pytest.raises(DataError, match=text) as error:
        build("coco_json", **KEYS).list()
    assert "instances.json: annotations[0]" in error.value.where


def test_all_faults_are_told_at_once(build: Build, write: Any) -> None:
    unknown: list[Any] = [annotation([PENTAGON], 99), annotation([PENTAGON], image=99), {"id": 7}]
    write(annotation([[1, 2]]), *unknown)
    with pytest.raises(DataError) as error:
        build("coco_json", **KEYS).list()
    texts = [str(each) for each in (error.value, *error.value.others)]
    assert sum("no category has the id 99" in text for text in texts) == 1
    assert sum("no image has the id 99" in text for text in texts) == 1
    assert sum("annotations[3]: no `image_id`" in text for text in texts) == 1
    assert sum("a polygon of 1 point;" in text for text in texts) == 1


def test_what_is_outside_is_cut_off_and_counted(build: Build, write: Any) -> None:
    star = [-30.0, -10.0, 90.0, 20.0, -30.0, 60.0, 10.0, 20.0]
    write(annotation([star]), annotation([[-9.0, -9, -3, -9, -3, -3]]))
    source = build("coco_json", **KEYS)
    mask = drawn(source)["a.jpg"]
    from tests.ingest.sources.annotated import assert_close

    assert_close(mask, filled(star))
    assert "shapes that reach out of their image, cut off: 2" in source.remarks


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no valid JSON"),
        ("[]", r"line 1: no valid JSON: `\{` is missing"),
        ("{}", "the file has no list `images`"),
        (
            '{"images": [],\n "annotations": [1,]}',
            "line 2: no valid JSON: a value is missing before",
        ),
        ('{"images": [],\n "annotations": [', "line 2: no valid JSON"),
        ("[" * 100_000, "no valid JSON"),
        ('{"a": ' + "[" * 100_000, "nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "a number is too long"),
        ("{} x", "there is more after the end"),
        ('{"images": [], "annotations": [], "categories": []}', "no annotated image"),
    ],
)
def test_what_is_no_file_of_coco(
    build: Build, write: Any, tmp_path: Path, text: str, message: str
) -> None:
    write()
    (tmp_path / "instances.json").write_text(text)
    with pytest.raises(DataError, match=message) as error:
        build("coco_json", **KEYS).list()
    assert "instances.json" in error.value.where


def test_files_that_cannot_be_read(build: Build, write: Any, tmp_path: Path) -> None:
    write()
    (tmp_path / "instances.json").write_bytes(b'{"images": "\xff"}')
    with pytest.raises(DataError, match=r"not UTF-8 text"):
        build("coco_json", **KEYS).list()
    (tmp_path / "instances.json").unlink()
    with pytest.raises(DataError, match=r"cannot read the annotations: No such file"):
        build("coco_json", **KEYS).list()


def test_missing_images_are_counted_and_all_missing_refused(
    build: Build, write: Any, tmp_path: Path
) -> None:
    write(annotation([PENTAGON]), names=("a.jpg", "b.jpg", "c.jpg"))
    (tmp_path / "images/b.jpg").unlink()
    (tmp_path / "images/c.jpg").unlink()
    source = build("coco_json", **KEYS)
    assert [*drawn(source)] == ["a.jpg"]
    assert (
        source.remarks[0] == f"2 of 3 annotated images are missing, first: {tmp_path}/images/b.jpg"
    )
    (tmp_path / "images/a.jpg").rename(tmp_path / "images/other.jpg")
    with pytest.raises(
        DataError, match=r"3 of 3 annotated images are missing, first: .*/a.jpg; set `images`"
    ):
        build("coco_json", **KEYS).list()


def test_names_may_not_lead_out_of_the_folder(build: Build, write: Any, tmp_path: Path) -> None:
    write(names=("a.jpg", "../b.jpg", "sub/../../c.jpg"))
    found = problems(build("coco_json", **KEYS))
    assert found["a.jpg"] is None
    assert found["b.jpg"] == f"leads out of {tmp_path}/images"
    assert found["c.jpg"] is not None


def test_an_image_that_is_listed_twice_is_refused(build: Build, write: Any) -> None:
    write(names=("a.jpg", "b.jpg", "a.jpg"))
    with pytest.raises(DataError, match=r"1 image is listed twice, first: a.jpg"):
        build("coco_json", **KEYS).list()
    write(names=("a.jpg", "./a.jpg"))
    with pytest.raises(DataError, match=r"'a.jpg' and './a.jpg' are the same image"):
        build("coco_json", **KEYS).list()


@pytest.mark.parametrize(
    ("key", "element", "text"),
    [
        ("images", "x", "no `id`"),
        ("images", {"id": 1}, "no `file_name`"),
        ("images", {"id": 1, "file_name": "a.jpg", "width": "x"}, "the size x x None"),
        ("images", {"id": True}, "no `id`"),
        ("categories", "x", "no `id`"),
        ("categories", {"id": 3}, "no `name`"),
        ("annotations", None, "no `image_id`"),
    ],
)
def test_broken_elements_name_their_place(
    build: Build, write: Any, key: str, element: Any, text: str
) -> None:
    write(**{key: [element]})
    with pytest.raises(DataError, match=rf"instances.json: {key}\[0\]: {text}"):
        build("coco_json", **KEYS).list()


def test_an_id_of_two_images_is_refused(build: Build, write: Any) -> None:
    image = {"id": 1, "width": 4, "height": 4}
    write(images=[{**image, "file_name": "a.jpg"}, {**image, "file_name": "b.jpg"}])
    with pytest.raises(DataError, match=r"images\[1\]: images\[0\] has the id 1 too"):
        build("coco_json", **KEYS).list()


def test_another_size_is_a_problem_of_the_image(build: Build, write: Any, tmp_path: Path) -> None:
    write(annotation([PENTAGON]), names=("a.jpg", "b.jpg"))
    add_image(tmp_path / "images/a.jpg", size=(32, 20))
    found = problems(build("coco_json", **KEYS))
    assert found["b.jpg"] is None
    assert str(found["a.jpg"]).startswith("its annotations are of 64 x 48 pixels, it has 32 x 20")
    add_image(tmp_path / "images/a.jpg")
    assert problems(build("coco_json", **KEYS)) == {"a.jpg": None, "b.jpg": None}


@pytest.mark.parametrize("as_stored", [False, True])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("is_turned", [False, True])
def test_sizes_tell_whether_annotations_are_of_the_turned_image(
    build: Build, write: Any, tmp_path: Path, as_stored: bool, orientation: int, is_turned: bool
) -> None:
    write(annotation([PENTAGON]))
    swaps = orientation > 4
    # Annotations are 64 x 48: those of the turned image, or of the stored one.
    stored = (HEIGHT, WIDTH) if swaps and is_turned else (WIDTH, HEIGHT)
    add_image(tmp_path / "images/a.jpg", orientation, stored)
    upright = filled_exactly()
    turns = {6: -1, 8: 1}
    if swaps and is_turned == as_stored:
        upright = np.rot90(upright, turns[orientation] * (-1 if as_stored else 1))
    mask = drawn(build("coco_json", as_stored=as_stored, **KEYS))["a.jpg"]
    np.testing.assert_array_equal(mask, upright)


def filled_exactly() -> Any:
    return coco.decode(coco.frPyObjects([PENTAGON], HEIGHT, WIDTH))[..., 0]
