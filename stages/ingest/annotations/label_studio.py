"""Label Studio's annotations: a JSON export of tasks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pipeline.engine.findings import Findings
from stages.ingest.annotations.brush_runs import brush_pixels
from stages.ingest.annotations.shapes import (
    AnnotatedImage,
    Mask,
    Shape,
    box,
    ellipse,
    numbers,
    polygon,
    refuse,
    size,
    turned,
)
from stages.ingest.annotations.text_files import JsonText
from stages.ingest.file_kind import IMAGE_ENDINGS, ending_of

_KINDS = ("polygonlabels", "rectanglelabels", "ellipselabels", "brushlabels", "labels")
_FORMAT = 'export the project as "JSON"; JSON-MIN and CSV are not read'
_UPLOAD = re.compile(r"[0-9a-f]{8}-(?=.)")
"""What Label Studio writes before the names of uploaded files."""
_SEVERAL = "tasks with several annotations, of which the ground truth or the newest counts"


def read(file: str, findings: Findings, remarks: Counter[str]) -> Iterator[AnnotatedImage]:
    """Reads the tasks of a file, in its order.

    Args:
        file: Path or address of the JSON file.
        findings: Gets what is wrong with single tasks and regions.
        remarks: Counts what is passed over.

    Yields:
        The image of each task; see `candidates` for its name. Shapes are None if the task has no
        annotation, or only skipped ones.

    Raises:
        DataError: The file cannot be read, or is none of this format.
    """
    text = JsonText(file)
    if not text.is_array():
        refuse("no list of tasks", file, _FORMAT)
    for _, number, task, _ in text.elements():
        image = None
        with findings.collecting():
            image = _image(task, f"{file}: task {number + 1}", findings, remarks)
        if image is not None:
            yield image


def candidates(name: str) -> Iterator[str]:
    """Paths at which the image of a task may lie below a folder, the most exact first.

    A task knows its image by a URL, a path in a storage, or the name that an upload got.
    """
    steps = [step for step in name.split("/") if step]
    for start in range(len(steps)):
        yield "/".join(steps[start:])
    if steps and (plain := _UPLOAD.sub("", steps[-1], count=1)) != steps[-1]:
        yield plain


def _image(task: Any, where: str, findings: Findings, remarks: Counter[str]) -> AnnotatedImage:
    data = task.get("data") if isinstance(task, dict) else None
    if not isinstance(data, dict):
        refuse("a task without `data`", where, _FORMAT)
    name = _name(data, where)
    annotation = _chosen(task.get("annotations", task.get("completions")), where, remarks)
    if annotation is None:
        return AnnotatedImage(name, None, None, None, where=where)
    width = height = None
    shapes = []
    for number, region in enumerate(annotation):
        place = f"{where}, region {number + 1}"
        with findings.collecting():
            if not isinstance(region, dict) or not isinstance(region.get("value"), dict):
                refuse("no region", place, _FORMAT)
            if (kind := region.get("type")) not in _KINDS:
                remarks[f"results without an area or a label, passed over ({str(kind)[:40]})"] += 1
                continue
            sides = (region.get("original_width"), region.get("original_height"))
            own = size(*sides, place)
            if width is not None and own != (width, height):
                what = f"its image is {own[0]} x {own[1]}, that of others {width} x {height}"
                refuse(what, place, _FORMAT)
            width, height = own
            shapes += _shapes(region, str(kind), own, place, remarks)
    return AnnotatedImage(name, width, height, tuple(shapes), where=where)


def _name(data: dict[str, Any], where: str) -> str:
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    names = {key: _path(value) for key, value in texts.items()}
    images = [key for key, name in names.items() if ending_of(name) in IMAGE_ENDINGS]
    key = next((key for key in ("image", *images) if names.get(key)), None)
    if key is None:
        refuse("its data names no image", where, "add `image` to the data of the task")
    return names[key]


def _path(address: str) -> str:
    """The path of an image in the address that a task has of it."""
    try:
        parts = urlsplit(address)
        local = parse_qs(parts.query).get("d", [""])[0]
    except ValueError:  # no URL, for example for a `[`
        return address.replace("\\", "/")
    if parts.path.rstrip("/").endswith("/local-files") and local:
        return local.replace("\\", "/")
    path = unquote(parts.path) if parts.scheme or address.startswith("/data/") else address
    return path.replace("\\", "/").removeprefix("/data/").lstrip("/")


def _chosen(annotations: Any, where: str, remarks: Counter[str]) -> list[Any] | None:
    """The regions of the annotation that counts: of the ground truth, else of the newest."""
    if not isinstance(annotations, list):
        refuse("a task without `annotations`", where, _FORMAT)
    found = []
    for number, one in enumerate(annotations):
        if not isinstance(one, dict) or not isinstance(one.get("result", []), list):
            refuse("an annotation without `result`", where, _FORMAT)
        if not one.get("was_cancelled"):
            rank = (bool(one.get("ground_truth")), str(one.get("updated_at") or ""), number)
            found.append((rank, one.get("result", [])))
    if found[1:]:
        remarks[_SEVERAL] += 1
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _shapes(
    region: dict[str, Any], kind: str, image: tuple[int, int], where: str, remarks: Counter[str]
) -> list[Shape]:
    value = region["value"]
    labels = value.get(kind)
    if not isinstance(labels, list) or not labels:
        remarks["regions without a label, passed over"] += 1
        return []
    if len(labels) > 1 or not isinstance(labels[0], str):
        refuse(f"{len(labels)} labels", where, "give each region one label")
    if region.get("image_rotation") not in (None, 0):
        what = f"drawn on an image turned by {region['image_rotation']} degrees"
        refuse(what, where, "turn the image itself, and annotate it upright")
    # Hidden regions may be drafts, or wrong: nobody has said what is below.
    name = None if region.get("hidden") or value.get("hidden") else labels[0]
    width, height = image
    if "rle" in value:
        return [Shape(name, mask=Mask.of(brush_pixels(value["rle"], width, height, where)))]
    if "points" in value:
        corners = polygon(value["points"], where)
    else:
        is_box = "width" in value
        keys = ("x", "y", "width", "height") if is_box else ("x", "y", "radiusX", "radiusY")
        if missing := [key for key in keys if key not in value]:
            refuse(f"no `{missing[0]}`", where, f"write {', '.join(keys)}")
        values = [*(value[key] for key in keys), value.get("rotation") or 0]
        x, y, across, down, degrees = numbers(values, where)
        corners = box(x, y, x + across, y + down) if is_box else ellipse(x, y, across, down)
        # Turned in pixels, since a percent of the width is not one of the height.
        pixels = _in_pixels(corners, width, height)
        x, y = x * width / 100, y * height / 100
        return [Shape(name, (turned(pixels, degrees, x, y),))]
    return [Shape(name, (_in_pixels(corners, width, height),))]


def _in_pixels(percents: tuple[float, ...], width: int, height: int) -> tuple[float, ...]:
    sides = (width, height)
    return tuple(number * sides[place % 2] / 100 for place, number in enumerate(percents))
