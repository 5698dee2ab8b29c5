"""Finds annotations of other tools in a folder: COCO, YOLO, LabelMe, CVAT, Label Studio."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, cast

from pydantic import TypeAdapter

from pipeline.config.components import Choice, chosen_from
from pipeline.engine.findings import Findings
from pipeline.errors import together
from stages.ingest.file_kind import FileKind, kind_by_name
from stages.ingest.sources._annotations import AnnotationSource
from stages.ingest.sources.base import Source

_SOURCES: TypeAdapter[Choice[Source]] = TypeAdapter(
    Annotated[Choice[Source], *chosen_from("stages.ingest.sources", Source)]
)
_START = 2**16
"""Characters of a file in which its kind shows."""
_MOST_FILES = 200
"""JSON files that are looked at; a folder of LabelMe has one for each image."""
_OTHER_SPLIT = re.compile("(val|valid|validation|test)", re.IGNORECASE)


@dataclass(frozen=True)
class Annotations:
    """Annotations of one tool.

    Attributes:
        source: Keys of the source that reads them, with paths below the folder.
        images: Paths of annotated images below the source's folder of images, in order.
        folder: That folder, below the folder that was looked at; "." for itself.
        names: How many shapes have each name.
        is_val: Whether their name says that they are to score on.
    """

    source: dict[str, Any]
    images: tuple[str, ...]
    folder: str
    names: Counter[str]
    is_val: bool


def find_annotations(folder: Path, files: Sequence[str]) -> list[Annotations]:
    """Finds the annotations below a folder.

    Args:
        folder: The folder.
        files: Paths of all files below it.

    Raises:
        DataError: Annotations are broken.
    """
    images = {file for file in files if kind_by_name(file) is FileKind.IMAGE}
    found: dict[tuple[str, tuple[str, ...]], Annotations] = {}
    for source in _sources(folder, files):
        each = _read(folder, source, images)
        if each.images:  # `val` may name the images of `train`, as it must name some
            found.setdefault((each.folder, each.images), each)
    return [*found.values()]


def _sources(folder: Path, files: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The keys of sources, by what the files are."""
    yield from _yolo(files)
    json_files = [file for file in files if file.lower().endswith(".json")]
    kinds = {file: _json_kind(folder / file) for file in json_files[:_MOST_FILES]}
    if "labelme" in kinds.values():
        yield {"name": "labelme", "images": "."}
    for file, kind in kinds.items():
        if kind not in (None, "labelme"):
            yield {"name": kind, "annotations": file, "images": None}
    for file in files:
        if file.lower().endswith(".xml") and "<annotations>" in _start(folder / file)[:4096]:
            yield {"name": "cvat", "annotations": file, "images": None}


def _yolo(files: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A data.yaml, or folders `images` and `labels` of text files."""
    texts = [file for file in files if file.endswith(".txt") and "labels" in Path(file).parts[:-1]]
    if not texts:
        return
    described = [file for file in files if PurePosixPath(file).name in ("data.yaml", "data.yml")]
    for file in described:
        for split in ("train", "val"):
            yield {"name": "yolo", "dataset": file, "split": split}
    if not described:
        parts = PurePosixPath(texts[0]).parts
        root = PurePosixPath(*parts[: parts.index("labels")])
        yield {"name": "yolo", "dataset": str(root)}


def _json_kind(path: Path) -> str | None:
    """The source of a JSON file, by the names in it."""
    start = _start(path).lstrip("\ufeff \t\r\n")
    if start.startswith("["):
        return "label_studio" if '"data"' in start and '"annotations"' in start else None
    if '"shapes"' in start and ('"imagePath"' in start or '"flags"' in start):
        return "labelme"
    if not start.startswith("{") or not re.search('"(images|annotations|categories)"', start):
        return None
    text = path.read_text(encoding="utf-8", errors="replace")
    if '"categories"' not in text or '"images"' not in text:
        return None
    return None if '"segments_info"' in text else "coco_json"


def _start(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_START)
    except OSError:
        return ""


def _read(folder: Path, keys: dict[str, Any], images: set[str]) -> Annotations:
    """Reads annotations with the source itself."""
    findings, remarks = Findings(), Counter[str]()
    chosen = {key: value for key, value in keys.items() if value is not None}
    if "images" in keys and keys["images"] is None:
        chosen["images"] = "."
    source = _source(folder, chosen)
    found = [image for image in source.annotated(findings, remarks) if image.shapes is not None]
    names = Counter(shape.name for image in found for shape in image.shapes or () if shape.name)
    listed = tuple(image.name for image in found)
    place = str(PurePosixPath(chosen.get("images", ".")))
    if keys.get("images", "") is None:
        place = _folder_of(listed, images)
        chosen["images"] = place
    elif chosen["name"] == "yolo":
        place = Path(source.folder).relative_to(folder).as_posix()
    if findings.faults:
        raise together(findings.faults)
    about = str(keys.get("annotations", keys.get("split", "")))
    is_val = _OTHER_SPLIT.search(about) is not None
    return Annotations(chosen, listed, place, names, is_val)


def _source(folder: Path, keys: dict[str, Any]) -> AnnotationSource:
    choice = _SOURCES.validate_python(keys)
    made = choice.create(data=folder, cache=folder, where="--")
    return cast(AnnotationSource, made)


def _folder_of(names: Sequence[str], images: set[str]) -> str:
    """The folder that most names of images start from."""
    parents = {parent for image in images for parent in PurePosixPath(image).parents}
    candidates = sorted({".", *map(str, parents)}, key=lambda each: (each.count("/"), each))

    def there(candidate: str) -> int:
        start = "" if candidate == "." else f"{candidate}/"
        return sum(f"{start}{name}" in images for name in names)

    return max(candidates, key=there)
