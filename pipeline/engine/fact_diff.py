"""Differences between recorded facts and present ones, in words: ``threshold 0.5 -> 0.6``."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from pydantic import JsonValue

from pipeline.config.config_section import Facts
from pipeline.records.redone import PREFIX

_SHOWN = 60
"""Characters of a value."""


@dataclass(frozen=True)
class FactChange:
    """A fact that differs.

    Attributes:
        key: The dotted key of the fact.
        text: The change in words.
    """

    key: str
    text: str


def fact_changes(recorded: Facts, present: Facts) -> tuple[FactChange, ...]:
    """Compares facts; one change a key that differs, in the order of keys.

    Inputs are digests, so their values are not shown.
    """
    if recorded == present:  # the usual case, and fast for many units
        return ()
    return tuple(_changes(recorded, present))


def _changes(recorded: Facts, present: Facts) -> Iterator[FactChange]:
    for key in sorted(recorded.keys() | present.keys()):
        old, new = recorded.get(key), present.get(key)
        if old == new:
            continue
        if key.startswith(PREFIX):
            yield FactChange(key, f"{key.removeprefix(PREFIX)} made again on request (--force)")
        elif key.startswith("inputs."):
            yield FactChange(key, f"{key.removeprefix('inputs.')} changed")
        elif isinstance(old, dict) and isinstance(new, dict):
            for change in _changes(old, new):
                yield FactChange(f"{key}.{change.key}", f"{key}.{change.text}")
        else:
            yield FactChange(key, f"{key} {_shown(old, new)} -> {_shown(new, old)}")


def _shown(value: JsonValue, other: JsonValue) -> str:
    """A value as short text; lists and long texts start where they differ."""
    text = "none" if value is None else str(value)
    if isinstance(value, bool):
        text = text.lower()  # as the config spells it
    if isinstance(value, list) and isinstance(other, list):
        text = f"[..., {str(value[same:])[1:]}" if (same := _num_equal(value, other)) else text
    elif isinstance(value, str) and isinstance(other, str) and len(text) > _SHOWN:
        same = _num_equal(value, other)
        text = f"...{text[same - _SHOWN // 2 :]}" if same > _SHOWN // 2 else text
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _num_equal(value: Sequence[object], other: Sequence[object]) -> int:
    """Number of equal items at the start of two sequences."""
    pairs = zip(value, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
