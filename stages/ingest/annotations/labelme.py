"""LabelMe's annotations: a JSON file an image."""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from math import dist
from typing import Any

import numpy as np

from pipeline.engine.findings import Findings
from pipeline.errors import DataError
from stages.ingest.annotations.shapes import (
    MAX_PIXELS,
    AnnotatedImage,
    Mask,
    Polygon,
    Shape,
    box,
    ellipse,
    numbers,
    polygon,
    refuse,
    size,
)
from stages.ingest.annotations.text_files import JsonText

_WITHOUT_AREA = ("line", "linestrip", "point", "points")


def read(file: str, findings: Findings, remarks: Counter[str]) -> AnnotatedImage | None:
    """Reads a file.

    Args:
        file: Path or address of the JSON file.
        findings: Gets what is wrong with single shapes.
        remarks: Counts shapes that have no area.

    Returns:
        The image; its name is `imagePath`, which starts at the folder of the file. None if the file
        is valid JSON, but none of LabelMe's.

    Raises:
        DataError: The file cannot be read.
    """
    value = JsonText(file).whole()
    if not isinstance(value, dict) or not isinstance(value.get("shapes"), list):
        return None
    name = value.get("imagePath")
    name = name.replace("\\", "/") if isinstance(name, str) else ""
    width = height = None
    if value.get("imageWidth") is not None or value.get("imageHeight") is not None:
        with findings.collecting():
            width, height = size(value.get("imageWidth"), value.get("imageHeight"), file)
    shapes = []
    for number, item in enumerate(value["shapes"]):
        with findings.collecting():
            where = f"{file}: shapes[{number}]"
            shape = _shape(item, where, remarks)
            shapes += [] if shape is None else [shape]
    return AnnotatedImage(name, width, height, tuple(shapes), where=file)


def _shape(item: Any, where: str, remarks: Counter[str]) -> Shape | None:
    if not isinstance(item, dict) or not isinstance(name := item.get("label"), str):
        refuse("a shape without a label", where, "write `label`: a text")
    kind = item.get("shape_type") or "polygon"
    if kind in _WITHOUT_AREA:
        remarks[f"shapes without an area, passed over ({kind})"] += 1
        return None
    points = item.get("points")
    if kind in ("polygon", "oriented_rectangle"):
        return Shape(name, (polygon(points, where),))
    corners = _two_points(points, where)
    if kind == "rectangle":
        return Shape(name, (box(*corners),))
    if kind == "circle":
        radius = dist(corners[:2], corners[2:])
        return Shape(name, (ellipse(corners[0], corners[1], radius, radius),))
    if kind == "mask":
        return Shape(name, mask=_mask(item.get("mask"), corners, where))
    what = f"unknown shape_type {str(kind)[:40]!r}"
    raise DataError(what, where=where, fix="draw it as a polygon")


def _two_points(points: Any, where: str) -> Polygon:
    if not isinstance(points, list) or len(points) not in (2, 4):
        refuse("it does not have two points", where, "write two corners, or center and edge")
    pairs = [point for point in points if isinstance(point, list) and len(point) == 2]
    if len(pairs) != len(points):
        refuse("its points are no pairs of x and y", where, "write [[x, y], [x, y]]")
    flat = numbers([number for pair in pairs for number in pair], where)
    if len(pairs) == 2:
        return flat
    return (min(flat[::2]), min(flat[1::2]), max(flat[::2]), max(flat[1::2]))


def _mask(text: Any, corners: Polygon, where: str) -> Mask:
    """The mask of a PNG file in base64, at its top left corner."""
    from pipeline.images.faults import UnreadableImageError
    from pipeline.images.label_files import decode_labels
    from pipeline.images.limits import Limits

    try:
        content = base64.b64decode(text if isinstance(text, str) else "", validate=True)
        pixels = decode_labels(content, Limits(max_pixels=MAX_PIXELS))
    except (binascii.Error, ValueError, UnreadableImageError) as error:
        reason = error if isinstance(error, UnreadableImageError) else "no base64"
        refuse(f"cannot read its mask: {reason}", where, "draw the mask again")
    inside = pixels.any(axis=2) if pixels.ndim == 3 else pixels != 0
    left, top = (round(min(corners[axis::2])) for axis in (0, 1))
    return Mask.of(np.ascontiguousarray(inside), left, top)
