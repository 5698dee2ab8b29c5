"""Environment variables in the values of a config: ``${NAME}`` and ``${NAME:-default}``."""

import os
import re
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FIX = "write ${NAME} or ${NAME:-default}, or $${ for the characters ${"


def filled(value: Any, path: Path) -> Any:
    """A value of a file with all variables in its texts replaced; a default may hold others.

    ``$${`` stands for the characters ``${``.

    Raises:
        ConfigError: A variable is not set and has no default, or is not written like this.
    """
    if isinstance(value, dict):
        return {key: filled(item, path) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, path) for item in value]
    return _fill(value, f"{path}: {value}") if isinstance(value, str) else value


def _fill(text: str, where: str) -> str:
    found, position = [], 0
    while (start := text.find("${", position)) >= 0:
        if start and text[start - 1] == "$" and start > position:
            found.append(text[position : start - 1] + "${")
            position = start + 2
            continue
        end = _end(text, start, where)
        found.append(text[position:start] + _value(text[start + 2 : end], where))
        position = end + 1
    return "".join([*found, text[position:]])


def _end(text: str, start: int, where: str) -> int:
    """The position of the brace that ends the variable that begins at `start`."""
    depth, position = 0, start
    while position < len(text):
        if text.startswith("${", position):
            depth, position = depth + 1, position + 2
            continue
        depth -= text[position] == "}"
        if not depth:
            return position
        position += 1
    raise ConfigError("a variable without its closing brace", where=where, fix=_FIX)


def _value(inside: str, where: str) -> str:
    name, separator, default = inside.partition(":-")
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name of a variable", where=where, fix=_FIX)
    if value := os.environ.get(name):
        return value
    if not separator:
        what, fix = f"the environment variable {name} is not set", f"set it: export {name}=..."
        raise ConfigError(what, where=where, fix=fix)
    return _fill(default, where)
