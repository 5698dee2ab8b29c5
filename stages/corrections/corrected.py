"""Reads corrected masks from the files of each format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import TypeAdapter

from pipeline.config.components import Choice, chosen_from
from pipeline.config.vocabulary import IGNORE, Vocabulary
from pipeline.engine.findings import Findings
from pipeline.errors import ConfigError, DataError, together
from pipeline.images import images
from pipeline.images.faults import UnreadableImageError
from pipeline.images.label_files import decode_labels
from stages.corrections.exported import Exported
from stages.export.formats.base import background_of
from stages.ingest.annotations.class_names import ClassNames
from stages.ingest.annotations.drawing import draw
from stages.ingest.sources._annotations import AnnotationSource
from stages.ingest.sources.base import Source

Bytes = npt.NDArray[np.uint8]

_MASKS = {"png": "masks", "unimatch": "SegmentationClass", "fiftyone": "labels", "mmseg": "ann_dir"}
"""Folders of masks by format."""
_SOURCES: TypeAdapter[Choice[Source]] = TypeAdapter(
    Annotated[Choice[Source], *chosen_from("stages.ingest.sources", Source)]
)


def corrected_masks(
    exported: Exported, annotations: Path | None, vocabulary: Vocabulary
) -> Iterator[tuple[str, Bytes]]:
    """Yields the name of each image and its mask (H, W) of class ids, 255 = ignore.

    Args:
        exported: The folder of the export.
        annotations: What the tool gave back, if it is not the folder itself.
        vocabulary: The classes of the run.

    Raises:
        ConfigError: Labels of this format do not come back.
        DataError: A file is missing, damaged, or names no class of the run.
    """
    if exported.format in _MASKS:
        folder = annotations or exported.folder / _MASKS[exported.format]
        yield from _of_pngs(folder, exported, vocabulary)
        return
    keys = _source_keys(exported, annotations)
    for each in keys:
        yield from _of_annotations(exported, each, vocabulary)


def _of_pngs(
    folder: Path, exported: Exported, vocabulary: Vocabulary
) -> Iterator[tuple[str, Bytes]]:
    for path in sorted(folder.rglob("*.png")):
        if path.stem not in exported.rows:
            continue
        try:
            labels = decode_labels(images.read_bytes(str(path)))
            scheme = vocabulary.scheme_of(labels, None)
        except (UnreadableImageError, ValueError) as error:
            fix = "save it as a PNG of class ids"
            raise DataError(str(error), where=str(path), fix=fix) from error
        mask, unknown = vocabulary.to_mask(labels, scheme)
        if unknown:
            what = f"no class has the values {', '.join(map(str, unknown[:5]))}"
            raise DataError(what, where=str(path), fix="use the class ids, and 255 for ignored")
        yield path.stem, mask


def _source_keys(exported: Exported, annotations: Path | None) -> list[dict[str, Any]]:
    """The sources that read the annotations; paths start at the folder of the export."""
    folder, splits = exported.folder, ("train", "val")
    if exported.format == "labelme":
        place = {} if annotations is None else {"annotations": str(annotations.resolve())}
        own = [split for split in splits if (folder / split).is_dir()]
        return [{"name": "labelme", "images": split, **place} for split in own]
    if exported.format == "yolo":
        dataset = "." if annotations is None else str(annotations.resolve())
        return [{"name": "yolo", "dataset": dataset}]
    files = {
        "coco": [(f"annotations/instances_{s}.json", f"images/{s}") for s in splits],
        "cvat": [("annotations.xml", "images")],
        "label_studio": [("tasks.json", ".")],
    }
    if exported.format not in files:
        known = ", ".join(sorted([*_MASKS, *files, "labelme", "yolo"]))
        what = f"labels of the format {exported.format} do not come back"
        raise ConfigError(what, where=str(folder), fix=f"export them as one of: {known}")
    name = {"coco": "coco_json"}.get(exported.format, exported.format)
    found = files[exported.format]
    if annotations is not None:
        found = [(str(annotations.resolve()), "images" if exported.format == "cvat" else ".")]
    there = [(file, place) for file, place in found if (folder / file).exists()]
    return [{"name": name, "annotations": file, "images": place} for file, place in there]


def _of_annotations(
    exported: Exported, keys: dict[str, Any], vocabulary: Vocabulary
) -> Iterator[tuple[str, Bytes]]:
    choice = _SOURCES.validate_python(keys)
    where = str(keys.get("annotations", exported.folder))
    source = cast(AnnotationSource, choice.create(data=exported.folder, cache=Path(), where=where))
    rest = background_of(vocabulary)
    name_of_rest = "ignore" if rest == IGNORE else vocabulary.class_names[rest]
    names = ClassNames(vocabulary, {}, name_of_rest, where)
    findings, remarks = Findings(), Counter[str]()
    for image in source.annotated(findings, remarks):
        name = PurePosixPath(image.name).stem
        if image.shapes is None or name not in exported.rows:
            continue
        ids = names.ids_of(image.shapes)
        width, height = image.width, image.height
        if width is None or height is None:
            width, height = _size(source.folder / image.name)
        yield name, draw(image, ids, names.rest, width, height)
    unknown = names.fault(where)
    if faults := [*findings.faults, *([] if unknown is None else [unknown])]:
        raise together(faults)


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size
