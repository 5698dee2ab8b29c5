"""Sources of annotated images: a folder of small images, and the masks that are drawn of them."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from pipeline.config.vocabulary import Vocabulary
from pipeline.files.config_paths import ConfigPaths
from pipeline.images.limits import Limits
from stages.ingest.sources.base import Drawing, Source

WIDTH, HEIGHT = 64, 48
CLASSES: list[dict[str, Any]] = [
    {"name": "background", "color": "#000000", "concepts": []},
    {"name": "car", "color": "#ff0000", "concepts": [["car", "automobile"]]},
    {"name": "traffic light", "color": "#00ff00"},
]
PENTAGON = [8.5, 6.0, 40.25, 9.5, 55.0, 30.75, 30.0, 44.0, 5.25, 25.5]
TRIANGLE = [20.0, 20.0, 60.5, 24.0, 33.0, 46.5]
Mask = npt.NDArray[np.uint8]
Build = Callable[..., Source]


def vocabulary(**keys: Any) -> Vocabulary:
    return Vocabulary.model_validate({"name": "street", "classes": CLASSES, **keys})


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """A source of `tmp_path`: ``build("coco_json", annotations="a.json", images="images")``."""

    def build(
        kind: str,
        own: Vocabulary | None = None,
        *,
        only_masked: bool = True,
        as_stored: bool = False,
        **keys: Any,
    ) -> Source:
        module = importlib.import_module(f"stages.ingest.sources.{kind}")
        [component] = [
            item
            for item in vars(module).values()
            if isinstance(item, type) and issubclass(item, Source) and item.file_name() == kind
        ]
        with ConfigPaths(tmp_path / "config.yaml").being_read():
            config = component.Config.model_validate(keys)
        drawing = Drawing(own or vocabulary(), tmp_path / "drawn", Limits(), as_stored)
        folders = dict.fromkeys(["data", "cache"], tmp_path)
        where = "config.yaml: street"
        return component(config, where=where, only_masked=only_masked, drawing=drawing, **folders)

    return build


def add_image(path: Path, orientation: int = 1, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "grey").save(path, exif=exif)


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def drawn(source: Source) -> dict[str, Mask]:
    """Lists a source and draws it: the mask of each image that has one, by its file name."""
    source.list()
    source.draw(lambda: None)
    rows = [row for row in source.list().to_pylist() if row["mask"] and Path(row["mask"]).exists()]
    return {Path(row["image"]).name: np.asarray(Image.open(row["mask"])) for row in rows}


def problems(source: Source) -> dict[str, str | None]:
    """Lists a source after drawing: the problem of each image, by its file name."""
    source.list()
    source.draw(lambda: None)
    return {Path(row["image"]).name: row["problem"] for row in source.list().to_pylist()}


def filled(polygon: list[float], class_id: int = 1, rest: int = 0) -> Mask:
    """The mask of a polygon by OpenCV: pixels whose center is inside."""
    corners = np.array(polygon, np.float32).reshape(-1, 1, 2)
    mask = np.full((HEIGHT, WIDTH), rest, np.uint8)
    for row, column in np.ndindex(mask.shape):
        if cv2.pointPolygonTest(corners, (column + 0.5, row + 0.5), False) > 0:
            mask[row, column] = class_id
    return mask


def assert_close(found: Mask, expected: Mask) -> None:
    """Checks that two masks differ only in pixels at the border of a class."""
    assert found.shape == expected.shape
    differ = found != expected
    borders = np.zeros_like(differ)
    for mask in (found, expected):
        for axis in (0, 1):
            for step in (-1, 1):
                borders |= np.roll(mask, step, axis) != mask
    assert not (differ & ~borders).any()
    assert differ.mean() < 0.05
    assert (found == expected).any()
