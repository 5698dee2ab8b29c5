"""Large JSON files, written and held one value at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def json_lines(lists: Mapping[str, Iterable[Any]]) -> Iterator[str]:
    """An object of lists as JSON, a value a line: {"images": [...], "annotations": [...]}."""
    opening = "{"
    for name, values in lists.items():
        yield f"{opening}{json.dumps(name)}: ["
        yield from values_in_lines(values)
        opening = "], "
    yield "]}"


def values_in_lines(values: Iterable[Any]) -> Iterator[str]:
    """JSON of each value on a line, with commas between them."""
    before = ""
    for value in values:
        yield f"{before}{json.dumps(value, ensure_ascii=False)}"
        before = ", "
