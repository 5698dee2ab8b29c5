"""What COCO's files have in common: images, categories, and annotations that refer to them."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.engine.findings import Findings
from stages.ingest.annotations.shapes import refuse, size
from stages.ingest.annotations.text_files import JsonText

_ARRAYS = ("images", "annotations", "categories")


class Element(NamedTuple):
    """An element of one of the arrays.

    Attributes:
        value: Its value.
        where: Its place, for errors: "instances.json: images[3]".
    """

    value: dict[str, Any]
    where: str


@dataclass(frozen=True)
class CocoImage:
    """An image with its annotations.

    Attributes:
        name: Its file name.
        width: Its width in pixels.
        height: Its height.
        annotations: Its annotations, in the order of the file.
        where: Its place, for errors.
    """

    name: str
    width: int
    height: int
    annotations: list[Element]
    where: str


class CocoDocument:
    """A COCO file. Elements are decoded twice, since all of them at once take much memory.

    Args:
        file: Path or address of the JSON file.
        findings: Gets what is wrong with single elements.

    Raises:
        DataError: The file cannot be read, or lacks one of the arrays.
    """

    def __init__(self, file: str, findings: Findings) -> None:
        self._text, self._findings = JsonText(file), findings
        self._images: dict[int | str, tuple[int, int]] = {}
        self._names: dict[int | str, str] = {}
        self._places: dict[int | str, array[int]] = {}
        missing = {*_ARRAYS}
        for key, number, value, at in self._text.members(_ARRAYS):
            missing.discard(key)
            if key in _ARRAYS:
                with findings.collecting():
                    self._add(key, number, value, at)
        if missing:
            self._check_arrays(missing)
        for image_id, own in self._places.items():
            if image_id not in self._images:
                with findings.collecting():
                    fix = "add the image to `images`, or remove the annotation"
                    what = f"no image has the id {image_id!r}"
                    refuse(what, self._where("annotations", own[0]), fix)

    def images(self) -> Iterator[CocoImage]:
        """Yields the images in the order of the file; those without a name or size are findings."""
        for image_id, (number, at) in self._images.items():
            found = None
            with self._findings.collecting():
                value, where = self._text.at(at), self._where("images", number)
                name = text_of(value, "file_name", where)
                width, height = size(value.get("width"), value.get("height"), where)
                own = self._places.get(image_id, array("q"))
                annotations = [
                    Element(self._text.at(place), self._where("annotations", index))
                    for index, place in zip(own[::2], own[1::2], strict=True)
                ]
                found = CocoImage(name, width, height, annotations, where)
            if found is not None:
                yield found

    def category(self, value: Any, where: str) -> str:
        """The name of the category of an annotation or segment.

        Raises:
            DataError: It has none, or no category has its id.
        """
        category = id_of(value, "category_id", where)
        if category not in self._names:
            fix = "add it to `categories`, or correct the id"
            refuse(f"no category has the id {category!r}", where, fix)
        return self._names[category]

    def _add(self, key: str, number: int, value: Any, at: int) -> None:
        where = self._where(key, number)
        if key == "annotations":
            own = self._places.setdefault(id_of(value, "image_id", where), array("q"))
            own.extend((number, at))
            return
        own_id = id_of(value, "id", where)
        if key == "categories":
            self._names[own_id] = text_of(value, "name", where)
            return
        other, _ = self._images.setdefault(own_id, (number, at))
        if other != number:
            what = f"images[{other}] has the id {own_id!r} too"
            refuse(what, where, "give each image an id of its own")

    def _check_arrays(self, missing: set[str]) -> None:
        """Refuses a file that lacks an array; an empty one has no elements to see."""
        found = {key: value for key, _, value, _ in self._text.members(())}
        for name in _ARRAYS:
            if name in missing and found.get(name) != []:
                fix = "name a JSON file with images, annotations and categories"
                refuse(f"the file has no list `{name}`", self._text.file, fix)

    def _where(self, key: str, number: int) -> str:
        return f"{self._text.file}: {key}[{number}]"


def id_of(value: Any, key: str, where: str) -> int | str:
    """An id in an element.

    Raises:
        DataError: There is none.
    """
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, int | str) or isinstance(found, bool):
        refuse(f"no `{key}`", where, f"write `{key}`: a whole number")
    return found


def text_of(value: dict[str, Any], key: str, where: str) -> str:
    """A text in an element.

    Raises:
        DataError: There is none.
    """
    found = value.get(key)
    if not isinstance(found, str) or not found:
        refuse(f"no `{key}`", where, f"write `{key}`: a text")
    return found
