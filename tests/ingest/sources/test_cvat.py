"""CVAT for images 1.1, drawn and broken."""

from pathlib import Path

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
)

__all__ = ["build"]
KEYS = {"annotations": "annotations.xml", "images": "images"}


def points(polygon: list[float]) -> str:
    return ";".join(f"{x},{y}" for x, y in zip(polygon[::2], polygon[1::2], strict=True))


def polygon(corners: list[float], label: str = "car", **more: object) -> str:
    extra = "".join(f' {key}="{value}"' for key, value in more.items())
    return (
        f'<polygon label="{label}" source="manual" occluded="0" points="{points(corners)}"{extra}>'
        '<attribute name="color">red</attribute></polygon>'
    )


def image(*shapes: str, name: str = "a.jpg", width: object = WIDTH) -> str:
    about = f'id="0" name="{name}" width="{width}" height="{HEIGHT}"'
    return f"<image {about}>\n{chr(10).join(shapes)}\n</image>\n"


@pytest.fixture
def xml(tmp_path: Path) -> Path:
    add_image(tmp_path / "images/a.jpg")
    return tmp_path / "annotations.xml"


def write(path: Path, *images: str) -> None:
    meta = "<meta><task><labels><label><name>car</name></label></labels></task></meta>"
    head = '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>\n'
    path.write_text(f"{head}{meta}\n{''.join(images)}</annotations>\n")


def test_polygons_are_those_of_opencv_in_the_order_of_z(build: Build, xml: Path) -> None:
    shapes = polygon(TRIANGLE, "traffic light", z_order=1), polygon(PENTAGON, z_order=0)
    write(xml, image(*shapes))
    expected = np.where(filled(TRIANGLE), 2, filled(PENTAGON)).astype(np.uint8)
    assert_close(drawn(build("cvat", **KEYS))["a.jpg"], expected)


def test_other_shapes(build: Build, xml: Path) -> None:
    inside = np.zeros((4, 6), np.uint8)
    inside[1:3, 2:5] = 1
    flat = [0, *inside.ravel().tolist()]
    starts = [0, *(np.flatnonzero(np.diff(flat))).tolist(), inside.size]
    runs = ", ".join(str(n) for n in np.diff(starts))
    shapes = [
        '<box label="car" xtl="10" ytl="5" xbr="30" ybr="20" z_order="0"></box>',
        f'<mask label="traffic light" rle="{runs}" left="40" top="30" width="6" height="4"></mask>',
        '<polyline label="car" points="1,2;3,4"></polyline>',
        '<tag label="car"></tag>',
    ]
    write(xml, image(*shapes))
    source = build("cvat", **KEYS)
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[5:20, 10:30] = 1
    expected[31:33, 42:45] = 2
    np.testing.assert_array_equal(drawn(source)["a.jpg"], expected)
    assert "shapes without an area, passed over (polyline): 1" in source.remarks
    assert "shapes without an area, passed over (tag): 1" in source.remarks


def test_turned_boxes_and_ellipses(build: Build, xml: Path) -> None:
    box = '<box label="car" xtl="22" ytl="19" xbr="42" ybr="29" rotation="90"></box>'
    write(xml, image(box))
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[14:34, 27:37] = 1
    np.testing.assert_array_equal(drawn(build("cvat", **KEYS))["a.jpg"], expected)
    ellipse = '<ellipse label="car" cx="32" cy="24" rx="20" ry="10" rotation="90"></ellipse>'
    write(xml, image(ellipse))
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    inside = ((rows - 24) / 20) ** 2 + ((columns - 32) / 10) ** 2 < 1
    assert_close(drawn(build("cvat", **KEYS))["a.jpg"], inside.astype(np.uint8))


def test_a_mask_beyond_the_border_is_cut_off(build: Build, xml: Path) -> None:
    mask = '<mask label="car" rle="0, 64" left="-4" top="-3" width="8" height="8"></mask>'
    write(xml, image(mask))
    source = build("cvat", **KEYS)
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[:5, :4] = 1
    np.testing.assert_array_equal(drawn(source)["a.jpg"], expected)
    assert "shapes that reach out of their image, cut off: 1" in source.remarks


def test_images_without_shapes_are_background(build: Build, xml: Path, tmp_path: Path) -> None:
    add_image(tmp_path / "images/sub/b.jpg")
    write(xml, image(), image(name="sub/b.jpg"))
    masks = drawn(build("cvat", **KEYS))
    assert [*masks] == ["a.jpg", "b.jpg"]
    assert not masks["b.jpg"].any()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ('<polygon label="car" points="1,2;3,4"></polygon>', "line 5: a polygon of 2 points"),
        ('<polygon label="car" points="1,2;3,4;5"></polygon>', "its corners are not pairs"),
        ('<polygon label="car" points="1,2;3,4;5,inf"></polygon>', "the coordinate 'inf'"),
        ('<polygon points="1,2;3,4;5,6"></polygon>', "<polygon> without a label"),
        ('<box label="car" xtl="1" ytl="2" xbr="3"></box>', "no `ybr`; write xtl, ytl, xbr, ybr"),
        ('<blob label="car"></blob>', "unknown element <blob>"),
        ('<polygon label="car" z_order="x" points=""></polygon>', "z_order 'x'"),
        (
            '<mask label="car" rle="1" left="0" top="0" width="2" height="2"></mask>',
            "cover 1 pixels",
        ),
        ('<mask label="car" rle="-1" left="0" top="0" width="2" height="2"/>', "no run lengths"),
        (
            '<mask label="car" left="0" top="0" width="99999999" height="99999"/>',
            "at most 100,000,000",
        ),
    ],
)
def test_broken_shapes_name_their_line(build: Build, xml: Path, shape: str, message: str) -> None:
    write(xml, image(shape))
    with pytest.raises(DataError, match=message) as error:
        build("cvat", **KEYS).list()
    assert error.value.where == f"{xml}: line 5"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("<annotations><image>", "line 1: no valid XML: no element found"),
        ("<a/>", "<a> is no export of CVAT; export the task as"),
        ("<annotations><track/></annotations>", "annotations of a video"),
        ("<annotations><image/></annotations>", "an image without a name"),
        ('<annotations><image name="a.jpg"/></annotations>', "the size None x None"),
        ("<annotations></annotations>", "no annotated image"),
    ],
)
def test_broken_files(build: Build, xml: Path, text: str, message: str) -> None:
    xml.write_text(text)
    with pytest.raises(DataError, match=message) as error:
        build("cvat", **KEYS).list()
    assert error.value.where.startswith(str(xml))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused(build: Build, xml: Path, encoding: str) -> None:
    entities = '<!ENTITY a "ha">' + "".join(
        f'<!ENTITY {name} "{f"&{before};" * 10}">'
        for before, name in zip("abcdefghi", "bcdefghij", strict=True)
    )
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n<!DOCTYPE annotations [{entities}]>\n'
    xml.write_text(f"{text}<annotations>&j;</annotations>", encoding=encoding)
    with pytest.raises(DataError, match=r"line 2: a document type, which may declare entities"):
        build("cvat", **KEYS).list()


def test_deep_elements_take_no_stack(build: Build, xml: Path) -> None:
    write(xml, image("<polygon>" * 100_000 + "</polygon>" * 100_000))
    with pytest.raises(DataError, match=r"<polygon> without a label"):
        build("cvat", **KEYS).list()


def test_duplicates_and_sizes(build: Build, xml: Path) -> None:
    write(xml, image(width=65))
    assert str(problems(build("cvat", **KEYS))["a.jpg"]).startswith(
        "its annotations are of 65 x 48"
    )
    write(xml, image(), image())
    with pytest.raises(DataError, match=r"1 image is listed twice, first: a.jpg"):
        build("cvat", **KEYS).list()


def test_sizes_are_of_the_upright_image(build: Build, xml: Path, tmp_path: Path) -> None:
    add_image(tmp_path / "images/a.jpg", 8, (HEIGHT, WIDTH))
    write(xml, image(polygon(PENTAGON)))
    assert_close(drawn(build("cvat", **KEYS))["a.jpg"], filled(PENTAGON))


def test_ids_choose_images_in_their_order(build: Build, xml: Path, tmp_path: Path) -> None:
    for name in ("b.jpg", "c.jpg"):
        add_image(tmp_path / "images" / name)
    write(xml, *(image(polygon(PENTAGON), name=f"{letter}.jpg") for letter in "abc"))
    ids = tmp_path / "ids.txt"
    ids.write_text("c.jpg\n\n a.jpg\nc.jpg\n")
    found = build("cvat", **KEYS, ids=str(ids)).list()
    assert [Path(path).name for path in found["image"].to_pylist()] == ["c.jpg", "a.jpg"]
    for text, fault in (("d.jpg\n", "line 1: no image 'd.jpg' in the annotations"), ("\xff", "d")):
        ids.write_bytes(text.encode("latin-1"))
        with pytest.raises(DataError, match=fault):
            build("cvat", **KEYS, ids=str(ids)).list()
