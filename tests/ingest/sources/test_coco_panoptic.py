"""COCO's panoptic annotations: segments of a PNG are classes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import DataError
from tests.ingest.sources.annotated import (
    HEIGHT,
    WIDTH,
    Build,
    add_image,
    build,
    drawn,
    problems,
    write_json,
)

__all__ = ["build"]
KEYS = {"annotations": "panoptic.json", "segments": "segments", "images": "images"}
CATEGORIES = [
    {"id": 3, "name": "car", "isthing": 1, "color": [9, 9, 9]},
    {"id": 10, "name": "traffic light", "isthing": 1},
    {"id": 90, "name": "background", "isthing": 0},
]
IDS = np.zeros((HEIGHT, WIDTH), np.int32)
IDS[10:], IDS[20:30, 10:20], IDS[20:30, 30:50], IDS[40:] = 7, 300, 3_000_000, 65536
INFOS = [
    {"id": 7, "category_id": 90},
    {"id": 300, "category_id": 3},
    {"id": 3_000_000, "category_id": 10},
    {"id": 65536, "category_id": 3, "iscrowd": 1},
]


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Writes images and a panoptic file of them."""

    def write(*annotations: Any, names: tuple[str, ...] = ("a.jpg",), ids: Any = IDS) -> None:
        images = []
        for number, name in enumerate(names, start=1):
            add_image(tmp_path / "images" / name)
            size = {"width": WIDTH, "height": HEIGHT}
            images.append({"id": number, "file_name": name, **size})
        colors = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
        (tmp_path / "segments").mkdir(exist_ok=True)
        Image.fromarray(colors).save(tmp_path / "segments/a.png")
        own = [{"image_id": 1, "file_name": "a.png", **one} for one in annotations]
        values = {"images": images, "annotations": own, "categories": CATEGORIES}
        write_json(tmp_path / "panoptic.json", values)

    return write


def test_segments_are_classes_and_the_rest_is_ignored(build: Build, write: Any) -> None:
    write({"segments_info": INFOS}, names=("a.jpg", "b.jpg"))
    source = build("coco_panoptic", **KEYS)
    expected = np.full((HEIGHT, WIDTH), 255, np.uint8)
    expected[10:40] = 0
    expected[20:30, 10:20] = 1
    expected[20:30, 30:50] = 2
    masks = drawn(source)
    np.testing.assert_array_equal(masks["a.jpg"], expected)
    assert [*masks] == ["a.jpg"]
    assert "1 of 2 images without annotations passed over" in source.remarks
    mask = drawn(build("coco_panoptic", rest="background", **KEYS))["a.jpg"]
    assert not mask[:10].any()


def test_a_changed_file_of_segments_is_drawn_anew(build: Build, write: Any) -> None:
    write({"segments_info": INFOS})
    drawn(build("coco_panoptic", **KEYS))
    write({"segments_info": INFOS}, ids=np.full_like(IDS, 300))
    assert (drawn(build("coco_panoptic", **KEYS))["a.jpg"] == 1).all()


def test_files_of_segments_that_cannot_be_used(build: Build, write: Any, tmp_path: Path) -> None:
    write({"segments_info": INFOS}, ids=IDS[:4])
    found = problems(build("coco_panoptic", **KEYS))["a.jpg"]
    assert found == f"{tmp_path}/segments/a.png is 64 x 4 pixels, its image 64 x 48"
    (tmp_path / "segments/a.png").write_bytes(b"no image")
    found = problems(build("coco_panoptic", **KEYS))["a.jpg"]
    assert found == f"{tmp_path}/segments/a.png: not an image of a known format"
    (tmp_path / "segments/a.png").unlink()
    with pytest.raises(DataError, match=r"1 PNG file of segments missing, first: .*/a.png"):
        build("coco_panoptic", **KEYS).list()
    (tmp_path / "segments").rmdir()
    with pytest.raises(DataError, match="segments: no such folder"):
        build("coco_panoptic", **KEYS).list()


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ([{}], r"annotations\[0\]: no `segments_info`; name a panoptic file"),
        ([{"segments_info": INFOS}] * 2, r"annotations\[1\]: the image has a second annotation"),
        ([{"segments_info": [{"id": 0, "category_id": 3}]}], r"segments_info\[0\]: the id 0"),
        ([{"segments_info": [{"id": 2**24, "category_id": 3}]}], "the id 16777216"),
        ([{"segments_info": [{"id": 1, "category_id": 4}]}], "no category has the id 4"),
        ([{"segments_info": ["x"]}], r"segments_info\[0\]: no `id`"),
        ([{"segments_info": [], "file_name": "../a.png"}], "leads out of"),
        ([{"segments_info": [], "file_name": 3}], "no `file_name`"),
    ],
)
def test_broken_annotations_name_their_place(
    build: Build, write: Any, annotations: Any, message: str
) -> None:
    write(*annotations)
    with pytest.raises(DataError, match=message):
        build("coco_panoptic", **KEYS).list()
