"""Each export read by the tool's own code, where it is installed (`make test-slow`).

None of them is a dependency; they were last tried as: ultralytics 8.4.190, supervision 0.31.2,
label-studio-sdk 2.1.2, datumaro 1.13.12, nnunetv2 2.6.
"""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.export.conftest import NAMES, masks
from tests.export.test_formats import same, truth

Bytes = npt.NDArray[np.uint8]
Export = Callable[..., Path]
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
TRAIN = ("--roles", "labeled")


def tool(name: str) -> ModuleType:
    """A module of a tool, or a skipped test."""
    found: ModuleType = pytest.importorskip(name, exc_type=ImportError)
    return found


def of_detections(dataset: Any, class_id: Callable[[int], int]) -> dict[str, Bytes]:
    """The masks of supervision's detections."""
    found = {}
    for path, image, detections in dataset:
        mask = np.zeros(image.shape[:2], np.uint8)
        for number in range(len(detections)):
            mask[detections.mask[number]] = class_id(detections.class_id[number])
        found[Path(path).stem] = mask
    return found


def test_ultralytics(export: Export) -> None:
    utils = tool("ultralytics.data.utils")
    out = export("yolo", *TRAIN)
    found = {}
    for path in (out / "labels/train").glob("*.txt"):
        [image] = (out / "images/train").glob(f"{path.stem}.*")
        with Image.open(image) as picture:
            width, height = picture.size
        mask = np.zeros((height, width), np.uint8)
        for line in path.read_text().splitlines():
            number, *shares = line.split()
            points = np.array(shares, float).reshape(-1, 2) * (width, height)
            region = utils.polygon2mask((height, width), [points.reshape(-1)])
            mask[region > 0] = int(number) + 1
        found[path.stem] = mask
    same(found, truth(ignored=0))


def test_supervision_reads_yolo(export: Export) -> None:
    supervision = tool("supervision")
    out = export("yolo", *TRAIN)
    folders = [str(out / name) for name in ("images/train", "labels/train", "data.yaml")]
    dataset = supervision.DetectionDataset.from_yolo(*folders, force_masks=True)
    same(of_detections(dataset, lambda number: number + 1), truth(ignored=0))


def test_supervision_reads_coco(export: Export) -> None:
    supervision = tool("supervision")
    out = export("coco", *TRAIN)
    files = [str(out / name) for name in ("images/train", "annotations/instances_train.json")]
    dataset = supervision.DetectionDataset.from_coco(*files, force_masks=True)
    names = dataset.classes
    same(of_detections(dataset, lambda number: NAMES.index(names[number])), truth(ignored=0))


@pytest.mark.parametrize("form", ["coco", "cvat"])
def test_datumaro(form: str, export: Export) -> None:
    datumaro = tool("datumaro")
    dataset = datumaro.Dataset.import_from(str(export(form, *TRAIN)), form)
    labels = dataset.categories()[datumaro.AnnotationType.label]
    found = {}
    for item in dataset:
        name = Path(item.id).name
        mask = np.zeros(masks()[name].shape, np.uint8)
        for annotation in item.annotations:
            if annotation.type == datumaro.AnnotationType.mask:
                mask[annotation.image.astype(bool)] = NAMES.index(labels[annotation.label].name)
        found[name] = mask
    same(found, truth(ignored=0))


def test_label_studio(export: Export) -> None:
    brush = tool("label_studio_sdk.converter.brush")
    found = {}
    for task in json.loads((export("label_studio", *TRAIN) / "tasks.json").read_text()):
        name = task["data"]["name"]
        mask = np.zeros(masks()[name].shape, np.uint8)
        for result in task["predictions"][0]["result"]:
            size = result["original_height"], result["original_width"]
            values = brush.decode_rle(result["value"]["rle"]).reshape(*size, 4)
            mask[values[..., 3] > 0] = NAMES.index(result["value"]["brushlabels"][0])
        found[name] = mask
    same(found, truth(ignored=0))


def test_labelme(export: Export) -> None:
    shape_of = tool("labelme.utils.shape")
    found = {}
    for path in (export("labelme", *TRAIN) / "train").glob("*.json"):
        described = json.loads(path.read_text())
        mask = np.zeros((described["imageHeight"], described["imageWidth"]), np.uint8)
        for shape in described["shapes"]:
            region = shape_of.shape_to_mask(mask.shape, shape["points"], shape["shape_type"])
            mask[region] = NAMES.index(shape["label"])
        found[path.stem] = mask
    same(found, truth(ignored=0))


def test_nnunet(export: Export) -> None:
    check = tool("nnunetv2.experiment_planning.verify_dataset_integrity")
    check.verify_dataset_integrity(str(export("nnunet", *TRAIN)), num_processes=1)


def test_mmsegmentation(export: Export) -> None:
    datasets = tool("mmseg.datasets")
    out = export("mmseg", *TRAIN)
    names: dict[str, Any] = {"data_root": str(out)}
    exec((out / "dataset.py").read_text(), names)
    keys = {key: value for key, value in names["train_dataset"].items() if key != "type"}
    dataset = datasets.BaseSegDataset(**{**keys, "data_root": str(out)}, pipeline=[])
    assert len(dataset) == len(masks())


def test_fiftyone(export: Export) -> None:
    fiftyone = tool("fiftyone")
    dataset = fiftyone.Dataset.from_dir(
        dataset_dir=str(export("fiftyone", *TRAIN)),
        dataset_type=fiftyone.types.ImageSegmentationDirectory,
    )
    found = {Path(each.filepath).stem: each.ground_truth.get_mask() for each in dataset}
    same(found, truth())
