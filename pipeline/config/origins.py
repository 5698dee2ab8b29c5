"""Origins of config values: the file or `--set` override, and the key as the user wrote it."""

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
        which lacks it. Otherwise it is a file, with the overrides that set something inside.
        """
        remark = f" ({remark})" if remark else ""
        steps = _texts(place)
        layer, depth = reach([layer.values for layer in self.layers], place)
        inside = []
        for override in reversed(self.overrides):
            own = _texts(override.place)
            if steps[: len(own)] == own or own[: depth + 1] == steps[: depth + 1] != steps:
                key = "" if own == steps else f": {'.'.join(steps)}"
                return f"--set {override.text}{key}{remark}"
            if own[: len(steps)] == steps:
                inside.append(f"--set {override.text}")
        key = f": {'.'.join(steps)}" if place else ""
        sets = f" (with {', '.join(reversed(inside))})" if inside and place else ""
        return f"{self.layers[layer].path}{key}{remark}{sets}"


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
