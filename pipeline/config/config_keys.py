"""The keys that a config may have, read from the sections: type, default, meaning and unit.

`docs/config.md`, the JSON schema and `maskmill config --explain` are made of them.
"""

import ast
import importlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pipeline.config import components
from pipeline.config.components import Choice, Family
from pipeline.config.config_section import RunOnly, Section
from pipeline.config.plain_words import Unit, expected, is_union, unwrapped

REQUIRED = "required"
"""The default of a key that has none."""
_UNITS = {
    "_px": "pixels",
    "_pixels": "pixels",
    "_bytes": "bytes",
    "_seconds": "seconds",
    "_every": "steps",
    "steps": "steps",
    "epochs": "epochs",
}
"""Units by the end of a key's name; other units are marked by `Unit`."""


@dataclass(frozen=True)
class Shape:
    """What is inside the value of a key.

    Attributes:
        section: The section that it is.
        family: The family that it chooses a component from.
        items: The annotation of each item of a list, or of each value of a mapping.
        is_list: Whether it is a list.
    """

    section: type[Section] | None = None
    family: Family | None = None
    items: object = None
    is_list: bool = False


@dataclass(frozen=True)
class Key:
    """A key of a section.

    Attributes:
        name: Its name.
        field: Its model.
        meaning: Its description, in one line.
    """

    name: str
    field: FieldInfo
    meaning: str

    @property
    def shape(self) -> Shape:
        """What is inside its value."""
        return shape(self.field.annotation, self.field.metadata)

    @property
    def type(self) -> str:
        """The values that it takes, in words."""
        return words(self.field.annotation, self.field.metadata)

    @property
    def default(self) -> str:
        """Its default, in YAML, or `REQUIRED`."""
        if self.field.default_factory is not None:
            return "{}"
        if self.field.default is PydanticUndefined:
            return REQUIRED
        return _plain(self.field.default)

    @property
    def unit(self) -> str:
        """The unit of its numbers; empty if they have none."""
        marked = (mark.text for mark in self.field.metadata if isinstance(mark, Unit))
        ends = (unit for end, unit in _UNITS.items() if self.name.endswith(end))
        return next(marked, next(ends, ""))

    @property
    def changes_results(self) -> bool:
        """Whether another value makes results stale."""
        return RunOnly not in self.field.metadata


def keys_of(section: type[Section]) -> list[Key]:
    """The keys of a section, in the order of their definition."""
    meanings = _meanings(section)
    return [
        Key(name, field, meanings.get(name, "")) for name, field in section.written_fields().items()
    ]


def components_of(family: Family) -> Mapping[str, type[components.Component]]:
    """The components of a family, by name."""
    names = components.names(family.package)
    return {name: components.find(family.package, name, family.base) for name in names}


def shape(annotation: object, metadata: Sequence[object] = ()) -> Shape:
    """What is inside the values of an annotation."""
    annotation, metadata = unwrapped(annotation, metadata)
    for mark in metadata:
        if isinstance(mark, Family):
            return Shape(family=mark)
    options = [each for each in get_args(annotation) if each is not type(None)]
    origin = get_origin(annotation)
    if origin is tuple:
        return Shape(items=options[0], is_list=True)
    if origin is dict:
        return Shape(items=options[1])
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return Shape(section=annotation)
    is_optional = type(None) in get_args(annotation) and not is_union(annotation)
    return shape(options[0]) if is_optional else Shape()


def words(annotation: object, metadata: Sequence[object] = ()) -> str:
    """The values of an annotation in words, with those inside a list or mapping."""
    annotation, metadata = unwrapped(annotation, metadata)
    found = shape(annotation, metadata)
    if found.family is not None:
        return f"one of {', '.join(components.names(found.family.package))}, with its keys"
    if get_origin(annotation) is Choice:
        return "a component"
    if isinstance(annotation, type) and is_dataclass(annotation):
        return f"a mapping of {' and '.join(each.name for each in fields(annotation))}"
    nothing = type(None) in get_args(annotation)
    text = expected(annotation, metadata)
    if found.items is None or "list of" in text:
        return text
    inner = words(found.items)
    text = text.removesuffix(" or null")
    return f"{text}, each {inner}{' or null' if nothing else ''}"


def _plain(value: Any) -> str:
    if isinstance(value, Section):
        return "{}"
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_plain, value))}]"
    return value if isinstance(value, str) and value else json.dumps(value)


def _meanings(section: type[Section]) -> dict[str, str]:
    """The texts below the fields of a class and of those that it inherits from."""
    found: dict[str, str] = {}
    for kind in (*reversed(section.__mro__), *section.written_in()):
        if issubclass(kind, Section) and kind is not Section:
            found |= _texts_below_fields(kind.__module__).get(kind.__name__, {})
    return found


@cache
def _texts_below_fields(module: str) -> Mapping[str, Mapping[str, str]]:
    """By class of a module: the text below each of its fields, in one line."""
    importlib.import_module(module)
    source = Path(str(sys.modules[module].__file__)).read_text(encoding="utf-8")
    classes = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    return {node.name: dict(_fields_with_text(node)) for node in classes}


def _fields_with_text(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, below in zip(node.body, node.body[1:], strict=False):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            yield field.target.id, " ".join(str(below.value.value).split())
