"""Overrides on the command line: `--set key.subkey=value`, in YAML."""

import re
from typing import Any

from pipeline.config.origins import Override
from pipeline.config.yaml_files import parse_value
from pipeline.config.yaml_reader import MAX_DEPTH
from pipeline.errors import ConfigError
from pipeline.files.config_paths import typed


def apply_override(override: str, values: dict[str, Any]) -> Override:
    """Sets one ``dotted.key=value`` in nested plain values, in place.

    Raises:
        ConfigError: It is no override, or its key leads to a value that has no keys.
    """
    key, equals, text = override.partition("=")
    where = f"--set {override}"
    if not (equals and key):
        raise ConfigError("not an override", where=where, fix="write --set key.subkey=value")
    value = typed(parse_value(text, where=where))
    *parents, last = key.split(".")
    if len(parents) >= MAX_DEPTH:
        raise ConfigError(f"the key has more than {MAX_DEPTH} parts", where=where, fix="shorten it")
    target: Any = values
    place: list[str | int] = []
    for parent in parents:
        step = _step(parent, target, where)
        if isinstance(target, dict) and target.get(step) is None:
            target[step] = {}
        place.append(step)
        target = target[step]
        if not isinstance(target, dict | list):
            raise ConfigError(f"{parent!r} is a value", where=where, fix="set the key itself")
    step = _step(last, target, where)
    target[step] = value
    return Override(override, (*place, step))


def _step(text: str, target: dict[str, Any] | list[Any], where: str) -> Any:
    """The key of a mapping, or the position in a list, that a part of a dotted key means."""
    if isinstance(target, dict):
        return text
    if re.fullmatch("[0-9]{1,9}", text) and int(text) < len(target):
        return int(text)
    fix = f"the list has {len(target)} items; write a position, from 0"
    raise ConfigError(f"{text!r} is no position of the list", where=where, fix=fix)
