"""The configs that come with Maskmill, with the vocabularies and lists that they name.

In a clone they are in `configs/`; an installed Maskmill has a copy in the package.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.config import yaml_reader
from pipeline.errors import ConfigError, StorageError, together
from pipeline.files import storage

_PACKAGE = Path(__file__).parent
_VOCABULARIES = "vocabularies"
_SCHEMA_NAME = "*.schema.json"
_MODELINE = "# yaml-language-server:"


def folder() -> Path:
    """The folder of all of them."""
    inside, clone = _PACKAGE / "configs", _PACKAGE.parent / "configs"
    return inside if inside.is_dir() else clone


def names() -> list[str]:
    """Their names: paths below the folder, without the ending, such as datasets/voc."""
    found = (path.relative_to(folder()) for path in folder().rglob("*.yaml"))
    return sorted(
        path.with_suffix("").as_posix() for path in found if path.parts[0] != _VOCABULARIES
    )


def vocabularies() -> list[str]:
    """Names of the class lists."""
    return [path.stem for path in sorted((folder() / _VOCABULARIES).glob("*.yaml"))]


def path(name: str) -> Path:
    """The file of a config, or of a vocabulary (vocabularies/voc).

    Args:
        name: The name; may have an ending, and begin with configs/.

    Raises:
        ConfigError: Nothing of this name comes with Maskmill.
    """
    plain = name.removeprefix("configs/").removesuffix(".yaml")
    lists = [f"{_VOCABULARIES}/{each}" for each in vocabularies()]
    if plain not in (*names(), *lists):
        fix = f"use one of: {', '.join(names())}; or vocabularies/NAME"
        raise ConfigError("no such config comes with Maskmill", where=name, fix=fix)
    return folder() / f"{plain}.yaml"


def description(file: Path) -> str:
    """The first sentence of the comment at the top of a YAML file."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith(("#  ", _MODELINE)):  # an indented line is a command
            lines.append(line.lstrip("# "))
    text = " ".join(lines)
    return re.split(r"(?<=\.)(?<!et al\.) (?=[A-Z0-9])", text)[0]


def copy(name: str, to: Path) -> list[Path]:
    """Copies a config and all that it refers to; files that are there as they should be stay.

    Args:
        name: See `path`.
        to: The folder that takes the place of `configs/`.

    Returns:
        The files that were written.

    Raises:
        ConfigError: See `path`.
        StorageError: Other files are in the way; nothing was copied.
    """
    files = {file: to / file.relative_to(folder()) for file in sorted({*_needed(path(name))})}
    missing = {file: copied for file, copied in files.items() if not copied.exists()}
    different = [
        StorageError(
            "another file is there",
            where=str(copied),
            fix="copy into another folder, or move this file away",
        )
        for file, copied in files.items()
        if file not in missing and not _is_copy(file, copied)
    ]
    if different:
        raise together(different)
    for file, copied in missing.items():
        storage.write_bytes(copied, file.read_bytes(), durable=False)
    return [*missing.values()]


def _is_copy(file: Path, copied: Path) -> bool:
    return copied.is_file() and copied.read_bytes() == file.read_bytes()


def _needed(config: Path) -> Iterator[Path]:
    """A config, the schemas, and the files that it names, each with those that they name.

    Of a path with a variable, such as splits/voc/${SPLIT}/labeled.txt, these are all files in the
    folder before it.
    """
    yield config
    yield from folder().glob(_SCHEMA_NAME)
    for text in _texts(yaml_reader.parse(config.read_text(encoding="utf-8"))):
        fixed, variable, _ = text.partition("${")
        named = Path(config.parent, fixed).resolve()
        if variable and "/" in fixed:
            yield from (file for file in named.rglob("*") if file.is_file())
        elif named.suffix == ".yaml" and named.is_file():
            yield from _needed(named)
        elif named.is_file():
            yield named


def _texts(value: Any) -> Iterator[str]:
    """All texts in plain values, but keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
