"""Errors of config values in the user's words: what a field takes, instead of pydantic's messages.

Every error of a section passes through `in_plain_words`, which leaves four kinds, by their type:
`unknown_key`, `unknown_component`, `wrong_value` (the message is the fix) and `missing`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

KEY = "[key]"
"""Pydantic's last step to a key of a mapping that is wrong itself."""
MAPPING = "a mapping of keys"
_OURS = ("unknown_key", "unknown_component", "wrong_value")

Steps: TypeAlias = tuple[str | int, ...]
Field: TypeAlias = tuple[object, Sequence[object]]
"""The annotation of a field, and its metadata."""


@dataclass(frozen=True)
class Words:
    """Describes the values of a field, by ``Annotated``: "a colour #rrggbb"."""

    text: str


@dataclass(frozen=True)
class Unit:
    """Names the unit of a field's number, by ``Annotated``, where its name does not: "images"."""

    text: str


def wrong_value(fix: str) -> PydanticCustomError:
    """An error of a value, which says what to write."""
    return PydanticCustomError("wrong_value", "{fix}", {"fix": fix})


def in_plain_words(
    error: ValidationError,
    fix: Callable[[ErrorDetails], PydanticCustomError | str | None] = lambda _: None,
) -> ValidationError:
    """The same error with messages of our own.

    Args:
        error: What pydantic found.
        fix: Describes one of the errors; None if it has nothing to say of it.
    """
    lines: list[InitErrorDetails] = []
    for detail in error.errors():
        kind: PydanticCustomError | str | None
        if detail["type"] in _OURS:
            kind = PydanticCustomError(detail["type"], "{fix}", detail["ctx"])
        elif detail["type"] == "value_error":
            kind = wrong_value(str(detail["ctx"]["error"]))
        else:
            kind = fix(detail) or detail["type"]
        line = InitErrorDetails(type=kind, loc=detail["loc"], input=detail["input"])
        if isinstance(kind, str) and "ctx" in detail:
            line["ctx"] = detail["ctx"]
        lines.append(line)
    return ValidationError.from_exception_data(error.title, lines)


def expected(annotation: object, metadata: Sequence[object] = ()) -> str:
    """The values of an annotation in words, as a noun: "a whole number from 1 to 4096"."""
    annotation, metadata = unwrapped(annotation, metadata)
    for mark in metadata:
        if isinstance(mark, Words):
            return mark.text
    bounds = limits(metadata)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return _alternatives([expected(each) for each in arguments])
    if origin is Literal:
        return _alternatives([repr(each) for each in arguments])
    if origin is tuple:
        several = arguments[1:] == (...,)
        return f"a list{_count(bounds, 'item')}" if several else f"a list of {len(arguments)} items"
    if origin is dict or _is_section(annotation):
        return f"a mapping{_count(bounds, 'key')}" if bounds else MAPPING
    if annotation is str:
        return "text" if "min_length" not in bounds else "text that is not empty"
    numbers = {int: "a whole number", float: "a number"}
    if isinstance(annotation, type) and annotation in numbers:
        return f"{numbers[annotation]}{_bounds(bounds)}"
    plain = {bool: "true or false", NoneType: "null", Path: "a path"}
    return plain.get(annotation, "another value")


def field_at(field: Field, place: Steps) -> Field:
    """The annotation at a place inside the value of a field."""
    for number, step in enumerate(place):
        annotation, _ = unwrapped(*field)
        if get_origin(annotation) in (Union, UnionType):
            options = [each for each in get_args(annotation) if each is not NoneType]
            annotation, _ = unwrapped(options[0], ())
        arguments = get_args(annotation)
        if get_origin(annotation) is tuple and isinstance(step, int):
            field = (arguments[0] if arguments[1:] == (...,) else arguments[step]), ()
        elif get_origin(annotation) is dict and step != KEY:
            is_key = place[number + 1 : number + 2] == (KEY,)
            field = arguments[0 if is_key else 1], ()
        elif step != KEY:
            return object, ()
    return field


def is_union(annotation: object) -> bool:
    """Whether a field takes values of several types, None not counted."""
    types = [each for each in get_args(annotation) if each is not NoneType]
    return get_origin(annotation) in (Union, UnionType) and len(types) > 1


def unwrapped(annotation: object, metadata: Sequence[object] = ()) -> Field:
    """An annotation without `Annotated`, and all metadata."""
    while get_origin(annotation) is Annotated:
        annotation, *inner = get_args(annotation)
        metadata = (*metadata, *inner)
    marks: list[object] = []
    for mark in metadata:
        marks += [*getattr(mark, "metadata", ()), mark]
    return annotation, marks


def limits(metadata: Sequence[object]) -> dict[str, Any]:
    """Bounds of a number or of a length, by pydantic's names."""
    names = ("ge", "gt", "le", "lt", "multiple_of", "min_length", "max_length")
    found = ((name, getattr(mark, name, None)) for mark in metadata for name in names)
    return {name: value for name, value in found if value is not None}


def _is_section(annotation: object) -> bool:
    if not isinstance(annotation, type):
        return False
    return issubclass(annotation, BaseModel) or is_dataclass(annotation)


def _bounds(limits: dict[str, Any]) -> str:
    words = {"gt": "above", "ge": "from", "lt": "below", "le": "to"}
    if not limits.keys() & {"gt", "ge"}:
        words["le"] = "up to"
    text = "".join(f" {words[name]} {limits[name]}" for name in words if name in limits)
    return text + (f", a multiple of {limits['multiple_of']}" if "multiple_of" in limits else "")


def _count(limits: dict[str, Any], item: str) -> str:
    least, most = limits.get("min_length"), limits.get("max_length")
    if least is None and most is None:
        return ""
    if least is not None and most is not None:
        return f" with {least} to {most} {item}s"
    words, count = ("at least", least) if most is None else ("at most", most)
    return f" with {words} {count} {item}{'s'[: count != 1]}"


def _alternatives(texts: Sequence[str]) -> str:
    *others, last = texts
    return f"{', '.join(others)} or {last}" if others else last
