"""COCO's instance annotations: a JSON file of polygons and run lengths."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from pipeline.engine.findings import Findings
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
from stages.ingest.annotations.text_files import JsonText

_ARRAYS = ("images", "annotations", "categories")
_BOX_ONLY = "annotations have only a box, whose pixels are ignored"
_NO_REGION = "annotations have no region"


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
    text = JsonText(file)
    images: dict[int | str, tuple[int, int]] = {}
    names: dict[int | str, str] = {}
    places: dict[int | str, array[int]] = {}
    seen = set()
    for key, number, value, at in text.members(_ARRAYS):
        seen.add(key)
        where = f"{file}: {key}[{number}]"
        if key not in _ARRAYS:
            continue
        with findings.collecting():
            if key == "images":
                _add_image(images, value, number, at, where)
            elif key == "categories":
                names[_id(value, "id", where)] = _text(value, "name", where)
            else:
                own = places.setdefault(_id(value, "image_id", where), array("q"))
                own.extend((number, at))
    if missing := [name for name in _ARRAYS if name not in seen]:
        # An empty array has no elements to see.
        _check_arrays(text, missing, file)
    for lost in places.keys() - images.keys():
        where = f"{file}: annotations[{places[lost][0]}]"
        with findings.collecting():
            fix = "add the image to `images`, or remove the annotation"
            refuse(f"no image has the id {lost!r}", where, fix)
    for image_id, (number, at) in images.items():
        own = places.get(image_id, array("q"))
        yield _image(text, number, at, own, names, findings, remarks)


def _check_arrays(text: JsonText, missing: list[str], file: str) -> None:
    """Refuses a file that lacks `images` or `categories`, or has something else there."""
    others = {key: value for key, _, value, _ in text.members(())}
    for name in missing:
        if others.get(name) != []:
            fix = "name a JSON file of instances, with images, annotations and categories"
            refuse(f"the file has no list `{name}`", file, fix)


def _add_image(
    images: dict[int | str, tuple[int, int]], value: Any, number: int, at: int, where: str
) -> None:
    key = _id(value, "id", where)
    if key in images:
        what = f"images[{images[key][0]}] has the id {key!r} too"
        refuse(what, where, "give each image an id of its own")
    images[key] = (number, at)


def _image(
    text: JsonText,
    number: int,
    at: int,
    places: array[int],
    names: dict[int | str, str],
    findings: Findings,
    remarks: Counter[str],
) -> AnnotatedImage:
    """An image with its annotations, which are decoded again, as all of them take much memory."""
    where = f"{text.file}: images[{number}]"
    value = text.at(at)
    name, width, height = "", None, None
    with findings.collecting():
        name = _text(value, "file_name", where)
        width, height = size(value.get("width"), value.get("height"), where)
    shapes = []
    for index, place in zip(places[::2], places[1::2], strict=True):
        with findings.collecting():
            own = f"{text.file}: annotations[{index}]"
            shape = _shape(text.at(place), names, (width, height), own, remarks)
            shapes += [] if shape is None else [shape]
    return AnnotatedImage(name, width, height, tuple(shapes), is_by_area=True, where=where)


def _shape(
    value: Any,
    names: dict[int | str, str],
    image: tuple[int | None, int | None],
    where: str,
    remarks: Counter[str],
) -> Shape | None:
    category = _id(value, "category_id", where)
    if category not in names:
        fix = "add it to `categories`, or remove the annotation"
        refuse(f"no category has the id {category!r}", where, fix)
    name = None if value.get("iscrowd") else names[category]
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


def _mask(region: dict[str, Any], image: tuple[int | None, int | None], where: str) -> Mask:
    sides = region.get("size")
    if not isinstance(sides, list) or len(sides) != 2:
        refuse("the run lengths have no size", where, "write `size: [height, width]`")
    width, height = size(sides[1], sides[0], where)
    if image[0] is not None and (width, height) != image:
        what = f"a mask of {width} x {height} pixels, but its image is {image[0]} x {image[1]}"
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


def _id(value: Any, key: str, where: str) -> int | str:
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, int | str) or isinstance(found, bool):
        refuse(f"no `{key}`", where, f"write `{key}`: a whole number")
    return found


def _text(value: Any, key: str, where: str) -> str:
    found = value.get(key)
    if not isinstance(found, str) or not found:
        refuse(f"no `{key}`", where, f"write `{key}`: a text")
    return found
