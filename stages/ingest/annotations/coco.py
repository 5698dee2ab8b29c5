"""COCO's instance annotations: a JSON file of polygons and run lengths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from pipeline.engine.findings import Findings
from stages.ingest.annotations.coco_document import CocoDocument, CocoImage, Element
from stages.ingest.annotations.shapes import (
    AnnotatedImage,
    Mask,
    Shape,
    box,
    check_counts,
    numbers,
    polygon,
    refuse,
    size,
)

_BOX_ONLY = "annotations with only a box, whose pixels are ignored"
_NO_REGION = "annotations without a region, passed over"


def read(file: str, findings: Findings, remarks: Counter[str]) -> Iterator[AnnotatedImage]:
    """Reads the images of a file, in its order.

    Crowd regions, and objects that have only a box, are ignored pixels.

    Args:
        file: Path or address of the JSON file.
        findings: Gets what is wrong with single images and annotations.
        remarks: Counts what is read otherwise than one may think.

    Yields:
        Each image; the smallest shape lies above all others.

    Raises:
        DataError: The file cannot be read, or is none of this format.
    """
    document = CocoDocument(file, findings)
    for image in document.images():
        shapes = []
        for annotation in image.annotations:
            with findings.collecting():
                shape = _shape(annotation, document, image, remarks)
                shapes += [] if shape is None else [shape]
        yield AnnotatedImage(
            image.name,
            image.width,
            image.height,
            tuple(shapes),
            is_by_area=True,
            where=image.where,
        )


def _shape(
    annotation: Element, document: CocoDocument, image: CocoImage, remarks: Counter[str]
) -> Shape | None:
    value, where = annotation
    category = document.category(value, where)
    name = None if value.get("iscrowd") else category
    region = value.get("segmentation")
    if isinstance(region, dict):
        return Shape(name, mask=_mask(region, image, where))
    if region:
        if not isinstance(region, list) or not all(isinstance(part, list) for part in region):
            fix = "write a list of polygons, [[x, y, x, y, ...], ...], or run lengths"
            refuse("the segmentation is no list of polygons", where, fix)
        parts = [polygon(part, f"{where}.segmentation[{n}]") for n, part in enumerate(region)]
        return Shape(name, tuple(parts))
    if not (isinstance(corner := value.get("bbox"), list) and len(corner) == 4):
        remarks[_NO_REGION] += 1
        return None
    remarks[_BOX_ONLY] += 1
    left, top, width, height = numbers(corner, f"{where}.bbox")
    return Shape(None, (box(left, top, left + width, top + height),))


def _mask(region: dict[str, Any], image: CocoImage, where: str) -> Mask:
    sides = region.get("size")
    if not isinstance(sides, list) or len(sides) != 2:
        refuse("the run lengths have no size", where, "write `size: [height, width]`")
    width, height = size(sides[1], sides[0], where)
    if (width, height) != (image.width, image.height):
        what = f"a mask of {width} x {height} pixels, its image is {image.width} x {image.height}"
        refuse(what, where, "export it in the size of the image")
    counts = region.get("counts")
    if isinstance(counts, str):
        values = _counts(counts, where)
    elif isinstance(counts, list) and all(type(count) is int for count in counts):
        values = counts
    else:
        refuse("no run lengths", where, "write `counts`: a list of numbers, or COCO's text")
    try:
        runs = np.array(values, np.int64)
    except OverflowError:
        runs = np.array([-1], np.int64)
    check_counts(runs, width, height, where)
    return Mask(0, 0, width, height, runs, by_columns=True)


def _counts(text: str, where: str) -> list[int]:
    """Decodes COCO's text: five bits a letter; the fourth number and later ones are differences.

    pycocotools reads over the end of what it has allocated where counts are too few.
    """
    found: list[int] = []
    value = bits = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64 or bits > 60:
            refuse("its run lengths are damaged", where, "export the mask again")
        value |= (code & 31) << bits
        bits += 5
        if not code & 32:
            value -= (code & 16) << bits - 4
            found.append(value + found[-2] if len(found) > 2 else value)
            value = bits = 0
    if bits:
        refuse("its run lengths are cut off", where, "export the mask again")
    return found
