"""YAML files and the YAML of `--set`; ``${NAME}`` in a file is an environment variable."""

from pathlib import Path
from typing import Any

from pipeline.config import environment, yaml_reader
from pipeline.config.config_merge import without_empty
from pipeline.config.yaml_reader import MAX_BYTES, YamlError
from pipeline.errors import ConfigError


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
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        text = content.decode() if len(content) <= MAX_BYTES else ""
    except UnicodeDecodeError as error:
        what = "cannot read the file: it is not UTF-8 text"
        raise ConfigError(what, where=str(path), fix="save it as UTF-8 text") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or "its name holds a NUL byte"
        raise ConfigError(f"cannot read the file: {reason}", where=str(path), fix=fix) from error
    if len(content) > MAX_BYTES:
        what = f"larger than {MAX_BYTES:,} bytes"
        raise ConfigError(what, where=str(path), fix="shorten it, if it is a config at all")
    try:
        values = environment.filled(yaml_reader.parse(text), path)
    except YamlError as error:
        where = f"{path}: line {error.line}"
        raise ConfigError(error.what, where=where, fix=error.fix) from error
    if not isinstance(values, dict):
        raise ConfigError("not a mapping of keys", where=str(path), fix="write `key: value` lines")
    return values


def parse_value(text: str, *, where: str) -> Any:
    """The value of a YAML text on the command line; None for an empty one.

    Args:
        text: The text.
        where: The option that it is written in, for errors.

    Raises:
        ConfigError: The text is not YAML.
    """
    try:
        return without_empty(yaml_reader.parse(text))
    except YamlError as error:
        if error.what.startswith("not valid YAML"):  # what is missing matters in files only
            raise ConfigError("the value is not valid YAML", where=where, fix="quote it") from error
        raise ConfigError(error.what, where=where, fix=error.fix) from error
