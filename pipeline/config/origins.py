"""Origins of config values: the file or `--set` override, and the key as the user wrote it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.config.config_merge import EMPTY

Place = tuple[str | int, ...]
"""Keys of mappings and positions of lists that lead to a value."""


class Written(NamedTuple):
    """The origin of a value in a config section.

    Attributes:
        place: The place in the section as the user wrote it.
        remark: What else a reader must know: "from the preset unimatch".
    """

    place: Place
    remark: str = ""


class Reached(NamedTuple):
    """The layer that decides about a place.

    Attributes:
        layer: Index of the topmost layer that holds as much of the place as any layer does.
        depth: Number of steps of the place that this layer holds.
    """

    layer: int
    depth: int


@dataclass(frozen=True)
class Layer:
    """A config file, as written: empty keys are `EMPTY`."""

    path: Path
    values: dict[str, Any]


@dataclass(frozen=True)
class Override:
    """A `--set` option: its text, and the place that it sets."""

    text: str
    place: Place


@dataclass(frozen=True)
class Origins:
    """The files and overrides that the values of a config come from.

    Attributes:
        layers: The config file, then the files that it extends, each over the next one.
        overrides: The overrides, in the order in which they were applied.
    """

    layers: Sequence[Layer]
    overrides: Sequence[Override] = ()

    def where(self, place: Place, remark: str = "") -> str:
        """The origin of the value at a place, or of the mapping that lacks it, for an error.

        That is the last override that sets the value or what it is in, or that made the mapping
        which lacks it. Otherwise it is a file; for a mapping or list, with the overrides inside or
        next to it.
        """
        remark = f" ({remark})" if remark else ""
        steps = _texts(place)
        layer, depth = reach([layer.values for layer in self.layers], place)
        for override in reversed(self.overrides):
            own = _texts(override.place)
            made = depth < len(steps) and own[: depth + 1] == steps[: depth + 1]
            if made or steps[: len(own)] == own:
                key = "" if own == steps else f": {'.'.join(steps)}"
                return f"--set {override.text}{key}{remark}"
        key = f": {'.'.join(steps)}" if place else ""
        return f"{self.layers[layer].path}{key}{remark}{self._with_overrides(place, layer)}"

    def _with_overrides(self, place: Place, layer: int) -> str:
        """The overrides inside a mapping or list, or next to a step to it, for an error."""
        value: Any = self.layers[layer].values
        for step in place:
            value = _inside(value, step)
        if not place or not isinstance(value, dict | list):
            return ""
        steps, texts = _texts(place), []
        for override in self.overrides:
            own = _texts(override.place)
            if own[: len(steps)] == steps or steps[: len(own) - 1] == own[:-1] != []:
                texts.append(f"--set {override.text}")
        return f" (with {', '.join(texts)})" if texts else ""

    def renamed(self, where: str) -> str:
        """The place of an error, "FILE: dotted.key: more", with the override that sets the key.

        Stages name the config file and a key.
        """
        match = re.fullmatch(r"(.+?): ([\w-]+(?:\.[\w-]+)*)((?:: .*)?)", where, re.DOTALL)
        if match is None or match[1] not in {str(layer.path) for layer in self.layers}:
            return where
        return f"{self.where(tuple(match[2].split('.')))}{match[3]}"


def reach(layers: Sequence[Any], place: Place) -> Reached:
    """Finds the layer that a value comes from when `merged` lays each layer over the next one."""
    found = list(enumerate(layers))
    for depth, step in enumerate(place):
        inner = [(index, _inside(value, step)) for index, value in _merging(found)]
        below = [(index, value) for index, value in inner if value is not EMPTY]
        if not below:
            return Reached(found[0][0], depth)
        found = below
    return Reached(found[0][0], len(place))


def _inside(value: Any, step: str | int) -> Any:
    """The value at a step into another; `EMPTY` if there is none."""
    if isinstance(value, dict):
        return value.get(step, EMPTY)
    is_position = isinstance(value, list | tuple) and isinstance(step, int) and step < len(value)
    return value[step] if is_position else EMPTY


def _merging(found: Sequence[tuple[int, Any]]) -> list[tuple[int, Any]]:
    """The topmost value, and the mappings below that it is merged with: see `merged`."""
    mappings = [*takewhile(lambda item: isinstance(item[1], dict), found)]
    kept = [*found[:1]]
    for position in range(1, len(mappings)):
        above = _name(mappings[:position])
        if above is not None and above != _name(mappings[position:]):
            break
        kept.append(mappings[position])
    return kept


def _name(mappings: Sequence[tuple[int, Any]]) -> object:
    """The component that merged mappings name; None if they name none."""
    names = (values["name"] for _, values in mappings if values.get("name", EMPTY) is not EMPTY)
    return next(names, None)


def _texts(place: Place) -> list[str]:
    """The steps as text: `--set` writes positions of lists as text."""
    return [str(step) for step in place]
