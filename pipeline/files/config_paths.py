"""Paths in a config: they start at the folder of the config file, as editors show them.

On the command line (`--set`) they start at the current folder, as shells complete them. Where a
path exists only by the other rule it is used, with a warning that says what to write.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, PlainValidator

from pipeline.files import locations

_FILE_ENDINGS = frozenset([".bin", ".pt", ".pth", ".safetensors"])


class CommandLineText(str):
    """A text of `--set`."""

    __slots__ = ()


@dataclass
class ConfigPaths:
    """The paths of a config that is being read.

    Attributes:
        file: The config file.
        warnings: A line for each path that exists only by the other rule; the keys of a dict.
    """

    file: Path
    warnings: dict[str, None] = field(default_factory=dict)

    @contextmanager
    def being_read(self) -> Iterator[None]:
        """Lets the relative paths of sections that are checked in the block start at the file."""
        token = _BEING_READ.set(self)
        try:
            yield
        finally:
            _BEING_READ.reset(token)

    def start(self, text: str) -> Path:
        """The path that a relative path stands for.

        A path below the current folder is relative to it, so that a fact which holds it does not
        depend on how the config file was named.
        """
        folders = [self.file.parent, Path()]
        is_typed = isinstance(text, CommandLineText)
        own, other = (below(folder, text) for folder in (folders[::-1] if is_typed else folders))
        if own == other or own.exists() or not other.exists():
            return own
        folder, rule = folders[is_typed], "the current folder" if is_typed else "the config file"
        place = f"--set ...={text}" if is_typed else f"{self.file}: {text}"
        write = os.path.relpath(other, folder)
        self.warnings[f"{place}: this path should start at {rule}; write {write}"] = None
        return other


_BEING_READ: ContextVar[ConfigPaths | None] = ContextVar("config paths", default=None)


def below(folder: Path, text: str) -> Path:
    """A relative path that starts at a folder; relative to the current folder if it is in it."""
    path = locations.local_path(os.path.join(folder, text))
    here = Path.cwd()
    return path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path


def _started(text: object) -> object:
    """A path of a config as the code uses it."""
    paths = _BEING_READ.get()
    if paths is None or not isinstance(text, str):
        return text
    is_relative = not (text.startswith("~") or os.path.isabs(text) or locations.is_address(text))
    return paths.start(text) if is_relative else text


def _location(text: object) -> Path:
    return locations.location(_started(text))


def _local_path(text: object) -> Path:
    return locations.local_path(_started(text))


def _maybe_path(text: object) -> object:
    """A text that is a path if it looks like one, or if there is such a file."""
    if not isinstance(text, str):
        return text
    locations.local_path(text)
    if "/" in text or Path(text).suffix in _FILE_ENDINGS:
        return str(_started(text))
    paths = _BEING_READ.get()
    is_file = paths is not None and paths.start(text).is_file()
    return str(_started(text)) if is_file else text


def with_path(text: object, prefix: str) -> object:
    """A value of a config; if it is a text of this prefix, with the path after it as code uses it.

    Raises:
        ValueError: See `locations.local_path`.
    """
    if not isinstance(text, str) or not text.startswith(prefix):
        return text
    return f"{prefix}{_local_path(type(text)(text.removeprefix(prefix)))}"


def typed(value: Any) -> Any:
    """Marks all texts in a value of `--set`, but keys."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    return CommandLineText(value) if type(value) is str else value


ConfigLocation = Annotated[Path, PlainValidator(_location), PlainSerializer(str)]
"""A config field that holds a path or an s3:// address, and starts at the config file."""

LocalPath = Annotated[Path, PlainValidator(_local_path), PlainSerializer(str)]
"""A config field that holds a path on this machine, which starts at the config file."""

MaybePath = Annotated[str, BeforeValidator(_maybe_path)]
"""A config field that holds a name of something, or a path that starts at the config file."""
