"""YOLO's annotations: a text file an image, and data.yaml with the names of the classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config import yaml_reader
from pipeline.config.config_merge import without_empty
from pipeline.engine.findings import Findings
from stages.ingest.annotations.shapes import AnnotatedImage, Shape, box, numbers, polygon, refuse
from stages.ingest.annotations.text_files import read_text

_BOX = 4
"""Numbers of a box: center, width and height."""


@dataclass(frozen=True)
class Dataset:
    """What data.yaml says.

    Attributes:
        names: The names of the classes by their number.
        root: Folder that the paths start from, as written; empty for that of the file.
        splits: Folders of images, as written, by split: train, val, test.
    """

    names: Mapping[int, str]
    root: str
    splits: Mapping[str, tuple[str, ...]]


def read_dataset(file: str) -> Dataset:
    """Reads data.yaml.

    Raises:
        DataError: The file cannot be read, is not YAML, or has no names.
    """
    try:
        values = without_empty(yaml_reader.parse(read_text(file)))
    except yaml_reader.YamlError as error:
        refuse(error.what, f"{file}: line {error.line}", error.fix)
    if not isinstance(values, dict):
        refuse("not a mapping of keys", file, "write `names: [...]` and `train: images/train`")
    splits = {}
    for name in ("train", "val", "test"):
        folders = values.get(name)
        folders = folders if isinstance(folders, list) else [folders] if folders else []
        if not all(isinstance(folder, str) for folder in folders):
            refuse("no path", f"{file}: {name}", "write the folder of its images")
        splits[name] = tuple(folders)
    root = values.get("path") or ""
    if not isinstance(root, str):
        refuse("no path", f"{file}: path", "write the folder that the others start from")
    return Dataset(_names(values.get("names"), f"{file}: names"), root, splits)


def read_names(file: str) -> dict[int, str]:
    """Reads classes.txt: a name a line, by its number from 0."""
    lines = read_text(file).splitlines()
    return {number: line.strip() for number, line in enumerate(lines) if line.strip()}


def read(
    file: str, name: str, names: Mapping[int, str], findings: Findings, remarks: Counter[str]
) -> AnnotatedImage:
    """Reads the label file of an image.

    Args:
        file: Path or address of the text file.
        name: The name of the image.
        names: The names of the classes; without any, their numbers are their names.
        findings: Gets what is wrong with single lines.
        remarks: Counts boxes, which are drawn as such.

    Returns:
        The image, in relative coordinates; an empty file has no shapes.

    Raises:
        DataError: The file cannot be read.
    """
    shapes = []
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        if cells := line.split():
            with findings.collecting():
                shapes.append(_shape(cells, names, f"{file}: line {number}", remarks))
    return AnnotatedImage(name, None, None, tuple(shapes), is_relative=True, where=file)


def _shape(cells: list[str], names: Mapping[int, str], where: str, remarks: Counter[str]) -> Shape:
    if not cells[0].isdecimal() or len(cells[0]) > 9:
        refuse(f"{cells[0][:40]!r} is no class", where, "begin the line with a number from 0")
    number = int(cells[0])
    if names and number not in names:
        what = f"class {number}, but the data set names {len(names)}"
        refuse(what, where, "correct the number, or add the name to data.yaml")
    name = names.get(number, str(number))
    if len(cells) == 1 + _BOX:
        x, y, width, height = numbers(cells[1:], where)
        remarks["boxes, which are drawn as such"] += 1
        return Shape(name, (box(x - width / 2, y - height / 2, x + width / 2, y + height / 2),))
    return Shape(name, (polygon(cells[1:], where),))


def _names(found: Any, where: str) -> dict[int, str]:
    if isinstance(found, list):
        found = dict(enumerate(found))
    if not isinstance(found, dict) or not found:
        refuse("no names of classes", where, "write a list of names, or `0: name` lines")
    names = {}
    for key, name in found.items():
        if not str(key).isdecimal() or not isinstance(name, str | int):
            refuse(f"{key}: {name!r} is no number and name", where, "write `0: name`")
        names[int(key)] = str(name)
    return names
