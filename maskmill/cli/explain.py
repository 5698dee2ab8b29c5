"""Explains a key of a config: what it means, what it takes, and where a config sets it."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from maskmill.config_models import whole_config
from pipeline.config.components import Choice
from pipeline.config.config import Config
from pipeline.config.config_keys import Key, Shape, components_of, keys_of, shape
from pipeline.config.config_section import Section
from pipeline.errors import ConfigError

_NOTHING = object()


@dataclass(frozen=True)
class _Found:
    """A key, and the component that it belongs to, if any."""

    key: Key
    component: str


def explained(config: Config, name: str) -> Iterator[str]:
    """Yields lines about a key.

    Args:
        config: The run whose values are told.
        name: The dotted key, as in `--set`: train.crop_px, ingest.sources.web.role.

    Raises:
        ConfigError: There is no such key.
    """
    steps = name.split(".")
    known = _find(Shape(section=whole_config()), steps, config.values, "")
    if not known:
        raise _unknown(config, name)
    yield name
    for found in known:
        key = found.key
        yield f"  {key.meaning}" + (f" (of {found.component})" if found.component else "")
        yield f"  type: {key.type}"
        if key.unit:
            yield f"  unit: {key.unit}"
        yield f"  default: {key.default}"
        if not key.changes_results:
            yield "  changes no result: another value makes nothing stale"
    yield from (f"  here: {line}" for line in dict.fromkeys(_settings(config, steps)))


def _find(inside: Shape, steps: Sequence[str], values: Any, component: str) -> list[_Found]:
    """The keys that the steps lead to: several where components of a family have one each."""
    if not steps:
        return []
    if inside.items is not None:
        return _find(shape(inside.items), steps[1:], _step(values, steps[0]), component)
    if inside.family is not None:
        chosen = values if isinstance(values, str) else _step(values, "name")
        of_family = components_of(inside.family)
        names = [chosen] if isinstance(chosen, str) and chosen in of_family else [*of_family]
        kinds = [(name, of_family[name].Config) for name in names]
        return [found for name, kind in kinds for found in _in(kind, steps, values, name)]
    return [] if inside.section is None else _in(inside.section, steps, values, component)


def _in(section: type[Section], steps: Sequence[str], values: Any, component: str) -> list[_Found]:
    step, *rest = steps
    key = next((key for key in keys_of(section) if key.name == step), None)
    if key is None:
        return []
    if not rest:
        return [_Found(key, component)]
    return _find(key.shape, rest, _step(values, step), component)


def _unknown(config: Config, name: str) -> ConfigError:
    """An error that suggests the nearest key, or lists those that stand beside it."""
    *above, last = name.split(".")
    inside, values = Shape(section=whole_config()), config.values
    for step in above:
        inside, values = _shape_at(inside, step, values), _step(values, step)
    section = _section_of(inside, values)
    names = [] if section is None else [key.name for key in keys_of(section)]
    close = difflib.get_close_matches(last, names, n=1)
    place = "".join(f"{step}." for step in above)
    if close:
        fix = f"did you mean {place}{close[0]}?"
    elif names:
        fix = f"use one of: {', '.join(names)}"
    else:
        fix = "`maskmill config` prints the keys that this config sets"
    return ConfigError("no such key", where=name, fix=fix)


def _shape_at(inside: Shape, step: str, values: Any) -> Shape:
    """What is at a step into a section, list or mapping; nothing if there is no such key."""
    if inside.items is not None:
        return shape(inside.items)
    section = _section_of(inside, values)
    keys = [] if section is None else keys_of(section)
    return next((key.shape for key in keys if key.name == step), Shape())


def _section_of(inside: Shape, values: Any) -> type[Section] | None:
    """The section that a value is; of a component, the one that the values choose."""
    if inside.family is None:
        return inside.section
    chosen = values if isinstance(values, str) else _step(values, "name")
    found = components_of(inside.family).get(str(chosen))
    return None if found is None else found.Config


def _settings(config: Config, steps: Sequence[str]) -> Iterator[str]:
    """Yields the value of a key in a config, and the file or override that sets it."""
    stage, *inner = steps
    section = config.sections.get(stage)
    root: Section = config.run if section is None else section
    places = [tuple(steps)] if section is None else section.places(tuple(inner))
    for place in places:
        value: Any = root
        typed: list[str | int] = []
        for step in place:
            typed.append(int(step) if isinstance(value, tuple) and str(step).isdigit() else step)
            value = _step(value, typed[-1])
        if value is _NOTHING:
            continue
        full = (*(() if section is None else (stage,)), *typed)
        yield f"{_shown(value)} ({_origin(config, section, full)})"


def _origin(config: Config, section: Section | None, place: tuple[str | int, ...]) -> str:
    written, remark = place, ""
    if section is not None:
        found = section.written_at(config.values.get(str(place[0])), place[1:])
        written, remark = (place[0], *found.place), found.remark
    value: Any = config.values
    for step in written:
        value = _step(value, step)
    if value is _NOTHING and not remark:
        return "default"
    return config.where(*place)


def _step(value: Any, step: str | int) -> Any:
    """The value at a step into another; `_NOTHING` if there is none."""
    if isinstance(value, Choice):
        return value.name if step == "name" else getattr(value.config, str(step), _NOTHING)
    if isinstance(value, Section):
        return getattr(value, str(step), _NOTHING)
    if isinstance(value, dict):
        return value.get(step, _NOTHING)
    is_list = isinstance(value, list | tuple) and str(step).isdigit()
    return value[int(step)] if is_list and int(step) < len(value) else _NOTHING


def _shown(value: Any) -> str:
    if isinstance(value, Choice):
        return value.name
    if isinstance(value, Section):
        return value.model_dump_json()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_shown(item)}' for key, item in value.items())}}}"
    names: dict[Any, str] = {None: "null", True: "true", False: "false"}
    return names[value] if value is None or isinstance(value, bool) else str(value)
