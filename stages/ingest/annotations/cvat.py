"""CVAT's annotations: an XML file "CVAT for images 1.1"."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from xml.parsers import expat

import numpy as np

from pipeline import stopping
from pipeline.engine.findings import Findings
from stages.ingest.annotations.shapes import (
    AnnotatedImage,
    Mask,
    Polygon,
    Shape,
    box,
    check_counts,
    ellipse,
    numbers,
    polygon,
    refuse,
    size,
    turned,
)
from stages.ingest.annotations.text_files import read_content

_PIECE = 2**16
_WITHOUT_AREA = ("polyline", "points", "cuboid", "skeleton", "tag")
_AREAS = ("polygon", "box", "ellipse", "mask")
_Attributes = dict[str, str]


def read(file: str, findings: Findings, remarks: Counter[str]) -> Iterator[AnnotatedImage]:
    """Reads the images of a file, in its order.

    Args:
        file: Path or address of the XML file.
        findings: Gets what is wrong with single images and shapes.
        remarks: Counts shapes that have no area.

    Yields:
        Each image; of its shapes those of a higher `z_order` come later.

    Raises:
        DataError: The file cannot be read, is none of this format, or declares entities.
    """
    content = read_content(file)
    parser = _Parser(file, findings, remarks)
    for start in range(0, len(content), _PIECE):
        stopping.check()
        parser.feed(content[start : start + _PIECE], is_last=start + _PIECE >= len(content))
        yield from parser.images
        parser.images.clear()
    if not content:
        refuse("the file is empty", file, "export the annotations again")


class _Parser:
    """Turns events of expat into images. No tree is built, however the elements are nested."""

    def __init__(self, file: str, findings: Findings, remarks: Counter[str]) -> None:
        self.images: list[AnnotatedImage] = []
        self._file, self._findings, self._remarks = file, findings, remarks
        self._expat = expat.ParserCreate()
        self._expat.StartDoctypeDeclHandler = self._refuse_doctype
        self._expat.StartElementHandler = self._start
        self._expat.EndElementHandler = self._end
        self._depth = 0
        self._image: _Attributes | None = None
        self._shapes: list[tuple[int, Shape]] = []

    def feed(self, piece: bytes, *, is_last: bool) -> None:
        try:
            self._expat.Parse(piece, is_last)
        except expat.ExpatError as error:
            where = f"{self._file}: line {error.lineno}"
            refuse(f"no valid XML: {expat.ErrorString(error.code)}", where, "export it again")

    @property
    def _where(self) -> str:
        return f"{self._file}: line {self._expat.CurrentLineNumber}"

    def _refuse_doctype(self, *_: object) -> None:
        what = "a document type, which may declare entities of any size"
        refuse(what, self._where, "remove the line `<!DOCTYPE ...>`; CVAT writes none")

    def _start(self, tag: str, attributes: _Attributes) -> None:
        self._depth += 1
        if self._depth == 1 and tag != "annotations":
            refuse(f"<{tag[:40]}> is no export of CVAT", self._where, _EXPORT)
        elif self._depth == 2 and tag == "track":
            refuse("annotations of a video", self._where, _EXPORT)
        elif self._depth == 2 and tag == "image":
            self._image, self._shapes = attributes, []
            self._image_where = self._where
        elif self._depth == 3 and self._image is not None:
            with self._findings.collecting():
                self._add(tag, attributes)

    def _end(self, tag: str) -> None:
        if self._depth == 2 and self._image is not None:
            with self._findings.collecting():
                own, where = self._image, self._image_where
                if not own.get("name"):
                    refuse("an image without a name", where, "add the attribute `name`")
                width, height = size(own.get("width"), own.get("height"), where)
                # Sorting keeps the order of equal ones.
                shapes = [shape for _, shape in sorted(self._shapes, key=lambda pair: pair[0])]
                name = own["name"].replace("\\", "/")
                self.images.append(AnnotatedImage(name, width, height, (*shapes,), where=where))
            self._image = None
        self._depth -= 1

    def _add(self, tag: str, attributes: _Attributes) -> None:
        where = self._where
        if tag in _WITHOUT_AREA:
            self._remarks[f"shapes without an area, passed over ({tag})"] += 1
            return
        if tag not in _AREAS:
            refuse(f"unknown element <{tag[:40]}>", where, _EXPORT)
        if not (name := attributes.get("label")):
            refuse(f"<{tag}> without a label", where, "add the attribute `label`")
        order = attributes.get("z_order", "0")
        if not order.removeprefix("-").isdecimal() or len(order) > 9:
            refuse(f"z_order {order[:40]!r}", where, "write a whole number")
        if tag == "mask":
            shape = Shape(name, mask=_mask(attributes, where))
        else:
            shape = Shape(name, (_polygon(tag, attributes, where),))
        self._shapes.append((int(order), shape))


_EXPORT = 'export the task as "CVAT for images 1.1"'


def _polygon(tag: str, attributes: _Attributes, where: str) -> Polygon:
    if tag == "polygon":
        points = attributes.get("points", "").split(";")
        return polygon([pair.split(",") for pair in points if pair.strip()], where)
    keys = ("cx", "cy", "rx", "ry") if tag == "ellipse" else ("xtl", "ytl", "xbr", "ybr")
    a, b, c, d, degrees = numbers(_attributes(attributes, keys, "rotation", where), where)
    if tag == "ellipse":
        return turned(ellipse(a, b, c, d), degrees, a, b)
    return turned(box(a, b, c, d), degrees, (a + c) / 2, (b + d) / 2)


def _attributes(
    attributes: _Attributes, needed: tuple[str, ...], optional: str, where: str
) -> list[str]:
    if missing := [key for key in needed if key not in attributes]:
        refuse(f"no `{missing[0]}`", where, f"write {', '.join(needed)}")
    return [*(attributes[key] for key in needed), attributes.get(optional, "0")]


def _mask(attributes: _Attributes, where: str) -> Mask:
    """A mask of run lengths along the rows of its box, outside first."""
    keys = ("left", "top", "width", "height")
    left, top, across, down, _ = _attributes(attributes, keys, "rotation", where)
    width, height = size(across, down, where)
    corner = numbers((left, top), where)
    cells = [cell.strip() for cell in attributes.get("rle", "").split(",")]
    if not all(cell.isdecimal() and len(cell) < 10 for cell in cells):
        refuse("no run lengths", where, "write `rle`: whole numbers, separated by commas")
    counts = np.array(cells, np.int64)
    check_counts(counts, width, height, where)
    return Mask(round(corner[0]), round(corner[1]), width, height, counts)
