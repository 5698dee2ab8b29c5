"""YOLO's segmentation labels: data.yaml, or folders of images and labels."""

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
)

__all__ = ["build"]
YAML = "path: .\ntrain: images/train\nval: images/val\nnames:\n  0: car\n  1: traffic light\n"


def line(number: int, polygon: list[float]) -> str:
    fractions = (n / (HEIGHT if place % 2 else WIDTH) for place, n in enumerate(polygon))
    return f"{number} {' '.join(f'{n:.6f}' for n in fractions)}\n"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A data set of two images to train and one to validate."""
    folder = tmp_path / "set"
    for name in ("train/a.jpg", "train/b.png", "val/c.jpg"):
        add_image(folder / "images" / name)
    for name in ("train", "val"):
        (folder / "labels" / name).mkdir(parents=True)
    (folder / "labels/train/a.txt").write_text(line(0, PENTAGON) + line(1, TRIANGLE))
    (folder / "labels/train/b.txt").touch()
    (folder / "labels/val/c.txt").write_text(line(0, TRIANGLE))
    (folder / "data.yaml").write_text(YAML)
    return folder


@pytest.mark.parametrize("named", ["set", "set/data.yaml"])
def test_pixels_are_those_of_opencv(build: Build, dataset: Path, named: str) -> None:
    source = build("yolo", dataset=named)
    masks = drawn(source)
    expected = np.where(filled(TRIANGLE), 2, filled(PENTAGON)).astype(np.uint8)
    assert_close(masks["a.jpg"], expected)
    assert not masks["b.png"].any(), "an empty file says that there is only background"
    assert [*masks] == ["a.jpg", "b.png"]
    assert_close(drawn(build("yolo", dataset=named, split="val"))["c.jpg"], filled(TRIANGLE))


def test_boxes_are_drawn_as_such(build: Build, dataset: Path) -> None:
    (dataset / "labels/train/a.txt").write_text("1 0.5 0.5 0.25 0.5\n")
    source = build("yolo", dataset="set")
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[12:36, 24:40] = 2
    np.testing.assert_array_equal(drawn(source)["a.jpg"], expected)
    assert "boxes, which are drawn as such: 1" in source.remarks


def test_images_without_a_file_are_passed_over(build: Build, dataset: Path) -> None:
    (dataset / "labels/train/b.txt").unlink()
    source = build("yolo", dataset="set")
    assert [*drawn(source)] == ["a.jpg"]
    assert "1 of 2 images without annotations passed over" in source.remarks
    assert build("yolo", only_masked=False, dataset="set").list()["mask"].null_count == 1


@pytest.mark.parametrize(
    ("yaml", "folders"),
    [
        ("train: ../train/images\nnames: [car, traffic light]\n", "train/images train/labels"),
        ("path: /data/of/others\ntrain: images/train\nnames: [car, x]\n", ""),
        ("path: ../datasets/set\ntrain: [images/train]\nnames: [car, x]\n", ""),
    ],
)
def test_paths_of_other_machines_and_tools(
    build: Build, dataset: Path, yaml: str, folders: str
) -> None:
    if folders:
        images, labels = (dataset / folder for folder in folders.split())
        images.parent.mkdir()
        (dataset / "images/train").rename(images)
        (dataset / "labels/train").rename(labels)
    (dataset / "data.yaml").write_text(yaml)
    names = {"x": "traffic light"}
    assert [*drawn(build("yolo", dataset="set", names=names))] == ["a.jpg", "b.png"]


def test_folders_without_data_yaml(build: Build, dataset: Path) -> None:
    (dataset / "data.yaml").unlink()
    names = {"0": "car", "1": "traffic light"}
    masks = drawn(build("yolo", dataset="set", names=names, split="train"))
    assert {*np.unique(masks["a.jpg"])} == {0, 1, 2}
    (dataset / "labels/classes.txt").write_text("car\ntraffic light\n")
    assert [*drawn(build("yolo", dataset="set"))] == ["a.jpg", "b.png", "c.jpg"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0.1 0.2 0.3\n", "line 1: 3 numbers are no pairs"),
        ("\n0 0.1 0.2 0.3 0.4 nan 0.6\n", "line 2: the coordinate 'nan'"),
        ("0 0.1 0.2\n", "line 1: a polygon of 1 point"),
        (
            "car 0.1 0.2 0.3 0.4 0.5 0.6\n",
            "line 1: 'car' is no class; begin the line with a number",
        ),
        ("7 0.1 0.2 0.3 0.4 0.5 0.6\n", "line 1: class 7, but the data set names 2"),
    ],
)
def test_broken_lines_name_their_place(
    build: Build, dataset: Path, text: str, message: str
) -> None:
    (dataset / "labels/train/a.txt").write_text(text)
    with pytest.raises(DataError, match=f"labels/train/a.txt: {message}"):
        build("yolo", dataset="set").list()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n", "data.yaml: not a mapping of keys"),
        ("names: [car\n", "data.yaml: line 2"),
        ("train: images/train\n", "data.yaml: names: no names of classes"),
        ("train: images/none\nnames: [car]\n", "data.yaml: train: no folder 'images/none'"),
        ("train: ../../etc\nnames: [car]\n", "data.yaml: train: no folder '../../etc'"),
        ("val: images/val\nnames: [car]\n", "train: no such split; set `split` to one of: val"),
        ("train: 3\nnames: [car]\n", "data.yaml: train: no path"),
        ("train: images/train\nnames: {a: car}\n", "a: 'car' is no number and name"),
    ],
)
def test_broken_data_yaml(build: Build, dataset: Path, text: str, message: str) -> None:
    (dataset / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        build("yolo", dataset="set").list()


def test_label_files_without_an_image_and_images_of_one_label_file(
    build: Build, dataset: Path
) -> None:
    (dataset / "labels/train/d.txt").touch()
    add_image(dataset / "images/train/a.png")
    with pytest.raises(DataError) as error:
        build("yolo", dataset="set").list()
    texts = " ".join(map(str, (error.value, *error.value.others)))
    assert f"1 label file without an image, first: {dataset}/labels/train/d.txt" in texts
    assert "images/train/a.jpg and images/train/a.png have the same label file" in texts


def test_no_labels_at_all(build: Build, dataset: Path) -> None:
    for path in (dataset / "labels/train").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"set: no label file; the label file of images/a.jpg is"):
        build("yolo", dataset="set").list()
    with pytest.raises(DataError, match=r"no such folder"):
        build("yolo", dataset="nothing").list()


def test_fractions_outside_are_cut_off_and_counted(build: Build, dataset: Path) -> None:
    (dataset / "labels/train/a.txt").write_text("0 -0.5 0.25 0.5 0.25 0.5 1.5 -0.5 1.5\n")
    source = build("yolo", dataset="set")
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[12:, :32] = 1
    np.testing.assert_array_equal(drawn(source)["a.jpg"], expected)
    assert "shapes that reach out of their image, cut off: 1" in source.remarks


def test_fractions_are_of_the_upright_image(build: Build, dataset: Path) -> None:
    add_image(dataset / "images/train/a.jpg", 6, (HEIGHT, WIDTH))
    expected = np.where(filled(TRIANGLE), 2, filled(PENTAGON)).astype(np.uint8)
    assert_close(drawn(build("yolo", dataset="set"))["a.jpg"], expected)
