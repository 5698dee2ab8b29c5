"""YAML of config files: words like `on` stay words, ``${NAME}`` is an environment variable."""

import os
import re
from pathlib import Path
from typing import Any

import yaml

from pipeline.config.config_merge import EMPTY, without_empty
from pipeline.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """Reads booleans as YAML 1.2 does: only true and false, so that the key `on` is a word.

    A value that is left empty is `EMPTY`; a value written as null is None. A key that is written
    twice in a mapping is an error.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """See `yaml.SafeLoader`; refuses a second key of one name."""
        written: set[str] = set()
        for key, _ in node.value:
            if key.value in written and isinstance(key, yaml.ScalarNode):
                what = f"the key {key.value!r} is written twice"
                raise yaml.constructor.ConstructorError(None, None, what, key.start_mark)
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                written.add(key.value)
        return super().construct_mapping(node, deep)


_BOOLEAN = "tag:yaml.org,2002:bool"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOLEAN]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    _BOOLEAN, re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), [*"tTfF"]
)
_Loader.add_constructor("tag:yaml.org,2002:null", lambda _, node: None if node.value else EMPTY)


def read_yaml(path: Path, *, fix: str) -> dict[str, Any]:
    """Reads a YAML mapping, filling in ``${NAME}`` and ``${NAME:-default}`` from the environment.

    Raises:
        ConfigError: The file is missing, not YAML or not a mapping, or names an unset variable.
    """
    filled: dict[str, Any] = without_empty(read_layer(path, fix=fix))
    return filled


def read_layer(path: Path, *, fix: str) -> dict[str, Any]:
    """Reads a YAML mapping to lay over others: as `read_yaml`, but empty values are `EMPTY`.

    Raises:
        ConfigError: The file is missing, not YAML or not a mapping, or names an unset variable.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a NUL in the name
        reason = getattr(error, "strerror", None) or "it is not a UTF-8 text file"
        raise ConfigError(f"cannot read the file: {reason}", where=str(path), fix=fix) from error
    try:
        values = _fill_environment(yaml.load(text, _Loader), path)
    except RecursionError as error:
        raise ConfigError("nested too deeply", where=str(path), fix="correct it") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: dates like 2024-13-01
        detail = " ".join(str(error).split())
        raise ConfigError(f"not valid YAML: {detail}", where=str(path), fix="correct it") from error
    if not isinstance(values, dict):
        raise ConfigError("not a mapping of keys", where=str(path), fix="write `key: value` lines")
    return values


def parse_value(text: str) -> Any:
    """The value of a YAML text; None for an empty one.

    Raises:
        yaml.YAMLError, ValueError: The text is not YAML.
    """
    try:
        return without_empty(yaml.load(text, _Loader))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def _fill_environment(value: Any, path: Path) -> Any:
    if isinstance(value, dict):
        return {key: _fill_environment(item, path) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill_environment(item, path) for item in value]
    if not isinstance(value, str):
        return value

    def fill(match: re.Match[str]) -> str:
        name, default = match.groups()
        filled = os.environ.get(name) or default
        if filled is None:
            what = f"the environment variable {name} is not set"
            raise ConfigError(what, where=f"{path}: {value}", fix=f"set it: export {name}=...")
        return filled

    return _VARIABLE.sub(fill, value)
