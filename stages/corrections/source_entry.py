"""Adds a source to a config file, and leaves all else in it as it is."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.config import yaml_reader
from pipeline.files import storage


def entry_lines(name: str, file: str) -> list[str]:
    """The YAML of a source of corrected images, without indentation."""
    return [
        f"{name}:  # corrected in another tool",
        "  role: labeled",
        f"  source: {{name: list, file: {file}, root: /}}",
    ]


def add_source(config: Path, name: str, file: str) -> bool:
    """Writes the source at the start of `ingest.sources`, if the file has that key in block style.

    Args:
        config: The config file.
        name: Name of the source.
        file: The list, as the config spells it.

    Returns:
        Whether it was written; else the config stays as it is.
    """
    text = config.read_text(encoding="utf-8")
    lines = text.split("\n")
    place = _place(lines)
    if place is None:
        return False
    at, indent = place
    lines[at:at] = [f"{indent}{line}" for line in entry_lines(name, file)]
    changed = "\n".join(lines)
    before, after = yaml_reader.parse(text), yaml_reader.parse(changed)
    sources = after["ingest"]["sources"]
    if sources.pop(name, None) is None or after != before:
        return False
    storage.write_bytes(config, changed.encode())
    return True


def _place(lines: list[str]) -> tuple[int, str] | None:
    """The line number and the indentation of the first source."""
    in_ingest = in_sources = False
    for number, line in enumerate(lines):
        if re.match(r"\S", line) and not line.startswith("#"):
            in_ingest = line.rstrip() == "ingest:"
            in_sources = False
        elif in_ingest and re.fullmatch(r"\s+sources:\s*(#.*)?", line):
            in_sources = True
        elif in_sources and (found := re.match(r"(\s+)[^\s#]", line)):
            return number, found[1]
    return None
