"""Checked sections with one key changed, for tests that must not know the keys by name."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.config.components import Choice
from pipeline.config.config_section import RunOnly, Section


def changes(section: Section) -> Iterator[tuple[str, Section]]:
    """Copies of a section with one key changed each, and the dotted key.

    Keys that are `RunOnly` are left out. Values are of the right kind, and else not checked.
    """
    for name, field in type(section).model_fields.items():
        if any(mark is RunOnly for mark in field.metadata):
            continue
        for key, value in _changed(getattr(section, name)):
            yield f"{name}{key}", section.model_copy(update={name: value})


def _changed(value: Any) -> Iterator[tuple[str, Any]]:
    """Other values instead of one, and the keys inside it that differ."""
    if isinstance(value, Section):
        yield from ((f".{key}", other) for key, other in changes(value))
    elif isinstance(value, Choice):
        yield ".name", replace(value, name=f"{value.name}x")
        yield from ((f".{key}", replace(value, config=own)) for key, own in changes(value.config))
    elif isinstance(value, dict):
        for name, item in value.items():
            for key, other in _changed(item):
                yield f".{name}{key}", {**value, name: other}
    elif isinstance(value, tuple):
        yield ".length", value[:-1] if value else ("other",)
        for index, item in enumerate(value):
            for key, other in _changed(item):
                yield f".{index}{key}", (*value[:index], other, *value[index + 1 :])
    else:
        yield "", _other(value)


def _other(value: object) -> object:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + (1 if isinstance(value, int) else 0.125)
    return Path(f"{value}x") if isinstance(value, Path) else f"{value or 'other'}x"
