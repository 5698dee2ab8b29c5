"""Each format, read as its tool reads it: the same pixels."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from PIL import Image, ImageDraw
from pycocotools.coco import COCO

from tests.export.conftest import NAMES, masks, photo

Bytes = npt.NDArray[np.uint8]
Export = Callable[..., Path]
SPLITS = ("train", "val")


def truth(*, ignored: int = 255) -> dict[str, Bytes]:
    """The masks by name, which are those of both splits, with another value for ignored pixels."""
    return {name: np.where(mask == 255, ignored, mask) for name, mask in masks().items()}


def same(found: dict[str, Bytes], expected: dict[str, Bytes]) -> None:
    """Names are equal up to the id that sets images of one name apart."""
    plain = {name.partition("-")[0]: mask for name, mask in found.items()}
    assert plain.keys() == expected.keys()
    assert len(plain) == len(found)
    for name, mask in expected.items():
        assert np.array_equal(plain[name], mask), name


def pngs(folder: Path) -> dict[str, Bytes]:
    return {path.stem: np.array(Image.open(path)) for path in folder.glob("*.png")}


@pytest.mark.parametrize(
    ("form", "images", "labels"),
    [
        ("png", "images", "masks"),
        ("unimatch", "JPEGImages", "SegmentationClass"),
        ("fiftyone", "data", "labels"),
    ],
)
def test_folders_of_palette_pngs(form: str, images: str, labels: str, export: Export) -> None:
    out = export(form, "--roles", "labeled")
    same(pngs(out / labels), truth())
    stems = {path.stem for path in (out / images).iterdir()}
    assert stems == {path.stem for path in (out / labels).iterdir()}
    with Image.open(out / labels / "ring.png") as picture:
        assert picture.mode == "P"
        assert (picture.getpalette() or [])[3:6] == [1, 0, 0]
    assert (out / images / "thin.jpg").read_bytes() == (
        out.parent / "labeled/images/thin.jpg"
    ).read_bytes()


def test_lists_of_png_and_unimatch(export: Export) -> None:
    out = export("unimatch")
    for name, count in (("labeled.txt", 6), ("val.txt", 6)):
        lines = (out / "splits" / name).read_text().splitlines()
        assert len(lines) == count
        for line in lines:
            image, mask = line.split(" ")
            with Image.open(out / image) as one, Image.open(out / mask) as other:
                assert one.size == other.size
    assert (out / "splits/classes.txt").read_text().splitlines() == [*NAMES]


def test_mmsegmentation(export: Export) -> None:
    out = export("mmseg")
    for split in SPLITS:
        same(pngs(out / "ann_dir" / split), truth())
        stems = {path.name for path in (out / "img_dir" / split).iterdir()}
        assert stems == {path.name for path in (out / "ann_dir" / split).iterdir()}
    names: dict[str, Any] = {}
    exec((out / "dataset.py").read_text(), names)
    assert names["metainfo"]["classes"] == [*NAMES]
    assert names["val_dataset"]["data_prefix"]["seg_map_path"] == "ann_dir/val"


def test_nnunet(export: Export) -> None:
    out = export("nnunet")
    described = json.loads((out / "dataset.json").read_text())
    assert described["labels"] == {**{n: i for i, n in enumerate(NAMES)}, "ignore": 4}
    assert described["numTraining"] == len([*(out / "imagesTr").iterdir()]) == 6
    same(pngs(out / "labelsTr"), truth(ignored=4))
    same(pngs(out / "labelsTs"), truth(ignored=4))
    cases = {path.name.removesuffix("_0000.png") for path in (out / "imagesTr").iterdir()}
    assert cases == {path.stem for path in (out / "labelsTr").iterdir()}


@pytest.mark.parametrize("split", SPLITS)
def test_coco(split: str, export: Export, capsys: pytest.CaptureFixture[str]) -> None:
    out = export("coco")
    coco = COCO(str(out / f"annotations/instances_{split}.json"))
    assert [c["name"] for c in coco.dataset["categories"]] == [*NAMES[1:]]
    found = {}
    for image in coco.dataset["images"]:
        mask = np.zeros((image["height"], image["width"]), np.uint8)
        for annotation in coco.imgToAnns[image["id"]]:
            pixels = coco.annToMask(annotation).astype(bool)
            assert not mask[pixels].any()
            mask[pixels] = annotation["category_id"]
            assert annotation["area"] == pixels.sum()
            left, top, width, height = annotation["bbox"]
            assert pixels[top : top + height, left : left + width].sum() == pixels.sum()
        with Image.open(out / "images" / split / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"])
        found[Path(image["file_name"]).stem] = mask
    same(found, truth(ignored=0))


@pytest.mark.parametrize("split", SPLITS)
def test_coco_panoptic(split: str, export: Export) -> None:
    """By the rules of panopticapi: each id is a segment, each segment has pixels; 0 is no label."""
    out = export("coco_panoptic")
    index = json.loads((out / f"annotations/panoptic_{split}.json").read_text())
    assert {c["id"]: c["name"] for c in index["categories"]} == dict(enumerate(NAMES, start=1))
    images = {image["id"]: image for image in index["images"]}
    found = {}
    folder = out / f"annotations/panoptic_{split}"
    for annotation in index["annotations"]:
        rgb = np.array(Image.open(folder / annotation["file_name"])).astype(int)
        ids = rgb[..., 0] + 256 * rgb[..., 1] + 256**2 * rgb[..., 2]
        segments = {segment["id"]: segment for segment in annotation["segments_info"]}
        assert {*np.unique(ids)} - {0} == {*segments}
        mask = np.full(ids.shape, 255, np.uint8)
        for number, segment in segments.items():
            assert segment["area"] == (ids == number).sum()
            mask[ids == number] = segment["category_id"] - 1
        image = images[annotation["image_id"]]
        assert mask.shape == (image["height"], image["width"])
        found[Path(annotation["file_name"]).stem] = mask
    same(found, truth())


@pytest.mark.parametrize("split", SPLITS)
def test_yolo(split: str, export: Export) -> None:
    """Filled as ultralytics fills polygons: points scaled to pixels, cut to integers, cv2."""
    cv2 = pytest.importorskip("cv2")
    out = export("yolo")
    described = yaml.safe_load((out / "data.yaml").read_text())
    assert [*described["names"].values()] == [*NAMES[1:]]
    found = {}
    for path in (out / described[split].replace("images", "labels")).iterdir():
        [image] = (out / described[split]).glob(f"{path.stem}.*")
        with Image.open(image) as picture:
            width, height = picture.size
        mask = np.zeros((height, width), np.uint8)
        for line in path.read_text().splitlines():
            number, *shares = line.split()
            points = np.array(shares, float).reshape(-1, 2) * (width, height)
            cv2.fillPoly(mask, [points.astype(np.int32)], color=int(number) + 1)
        found[path.stem] = mask
    same(found, truth(ignored=0))


def test_labelme(export: Export) -> None:
    """Filled as LabelMe fills polygons: Pillow, with their border."""
    out = export("labelme", "--roles", "labeled")
    assert (out / "labels.txt").read_text().splitlines() == [*NAMES[1:]]
    found = {}
    for path in (out / "train").glob("*.json"):
        described = json.loads(path.read_text())
        height, width = described["imageHeight"], described["imageWidth"]
        with Image.open(path.parent / described["imagePath"]) as picture:
            assert picture.size == (width, height)
        mask = Image.new("L", (width, height))
        for shape in described["shapes"]:
            number = NAMES.index(shape["label"])
            points = [tuple(point) for point in shape["points"]]
            ImageDraw.Draw(mask).polygon(points, outline=number, fill=number)
        found[path.stem] = np.array(mask)
    same(found, truth(ignored=0))


def test_cvat(export: Export) -> None:
    out = export("cvat", "--roles", "labeled")
    tree = ElementTree.parse(out / "annotations.xml")
    assert [each.text for each in tree.iter("name")] == [*NAMES[1:]]
    found = {}
    for image in tree.iter("image"):
        assert (out / "images" / image.attrib["name"]).exists()
        mask = np.zeros((int(image.attrib["height"]), int(image.attrib["width"])), np.uint8)
        for shape in image:
            counts = [int(count) for count in shape.attrib["rle"].split(",")]
            values = np.repeat(np.arange(len(counts)) % 2, counts).astype(bool)
            size = int(shape.attrib["height"]), int(shape.attrib["width"])
            rows = slice(int(shape.attrib["top"]), int(shape.attrib["top"]) + size[0])
            columns = slice(int(shape.attrib["left"]), int(shape.attrib["left"]) + size[1])
            mask[rows, columns][values.reshape(size)] = NAMES.index(shape.attrib["label"])
        found[Path(image.attrib["name"]).stem] = mask
    same(found, truth(ignored=0))


def decoded_brush(values: list[int]) -> Bytes:
    """Label Studio's run lengths, from its description: bits to a flat array of bytes."""
    bits = "".join(f"{value:08b}" for value in values)
    position = 0

    def take(count: int) -> int:
        nonlocal position
        position += count
        return int(bits[position - count : position], 2)

    total, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    found: list[int] = []
    while len(found) < total:
        is_run, size = take(1), sizes[take(2)]
        length = take(size) + 1
        found += [take(word)] * length if is_run else [take(word) for _ in range(length)]
    return np.array(found, np.uint8)


def test_label_studio(export: Export) -> None:
    out = export("label_studio", "--roles", "labeled")
    found = {}
    for task in json.loads((out / "tasks.json").read_text()):
        image = out / task["data"]["image"].partition("?d=")[2]
        with Image.open(image) as picture:
            width, height = picture.size
        mask = np.zeros((height, width), np.uint8)
        for result in task["predictions"][0]["result"]:
            assert (result["original_width"], result["original_height"]) == (width, height)
            values = decoded_brush(result["value"]["rle"]).reshape(height, width, 4)
            mask[values[..., 3] > 128] = NAMES.index(result["value"]["brushlabels"][0])
        found[image.stem] = mask
    same(found, truth(ignored=0))
    labels = ElementTree.parse(out / "interface.xml").iter("Label")
    assert [label.attrib["value"] for label in labels] == [*NAMES[1:]]


def test_hugging_face_datasets(export: Export, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    out = export("datasets")
    loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert {*loaded} == {"train", "validation"}
    for split in ("train", "validation"):
        assert isinstance(loaded[split].features["mask"], datasets.Image)
        same({row["name"]: np.array(row["mask"]) for row in loaded[split]}, truth())
        sizes = {row["image"].size == row["mask"].size for row in loaded[split]}
        assert sizes == {True}


def test_webdataset(export: Export) -> None:
    out = export("webdataset")
    for split in SPLITS:
        found, images = {}, set()
        for path in out.glob(f"{split}-*.tar"):
            with tarfile.open(path) as archive:
                for member in archive:
                    name, _, ending = member.name.partition(".")
                    content = archive.extractfile(member)
                    assert content is not None
                    if ending == "mask.png":
                        found[name] = np.array(Image.open(io.BytesIO(content.read())))
                    elif ending != "json":
                        images.add(name)
        same(found, truth())
        assert images == {*found}


@pytest.mark.parametrize("form", ["png", "coco_panoptic"])
def test_stored_labels_have_the_size_of_their_images(form: str, export: Export) -> None:
    """Images of 64 px on a canvas of 64 px keep every pixel."""
    out = export(form, "--roles", "ood")
    if form == "png":
        found = {n: m for n, m in pngs(out / "masks").items() if n not in ("thin", "noise")}
        expected = {n: m for n, m in truth().items() if n not in ("thin", "noise")}
        assert {n: (m != expected[n]).sum() for n, m in found.items()} == dict.fromkeys(expected, 0)
        sizes = {name: mask.shape for name, mask in pngs(out / "masks").items()}
        assert sizes == {name: mask.shape for name, mask in masks().items()}
    table = (out / "maskmill.csv").read_text().splitlines()
    assert table[0] == "name,split,image,image_id,role,labeler,fingerprint"
    assert len(table) == 7
    assert all(",ood,files," in line for line in table[1:])


def test_a_turned_photo_is_written_as_it_is_seen(
    config: Path, maskmill: Callable[..., Any], tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo((64, 48), 99).save(tmp_path / "labeled/images/ring.png", exif=exif)
    assert maskmill("run", "ingest", "--config", config).returncode == 0
    out = tmp_path / "out"
    done = maskmill(
        *("export", "labels", "--config", config, "--to", "png", "--out", out),
        *("--roles", "labeled"),
    )
    assert done.returncode == 0, done.stderr
    with Image.open(out / "images/ring.png") as picture:
        assert picture.size == (64, 48)
        assert 0x0112 not in picture.getexif()
        assert np.array_equal(np.array(picture), np.rot90(np.array(photo((64, 48), 99)), k=-1))
