"""Splits the images of a list or folder at random into labeled and unlabeled ones."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

from pipeline.config.config import Config
from pipeline.console import Console
from pipeline.errors import ConfigError, DataError
from pipeline.files import storage
from stages.ingest import text_list
from stages.ingest.config import Role, ingest_section
from stages.ingest.sources.base import Source
from stages.ingest.sources.folder import FolderSource

_DRAWN: tuple[Role, ...] = ("labeled", "unlabeled")
_SHOWN = 5
"""Names that an error lists."""


def draw_split(
    config: Config, console: Console, *, labeled: int, seed: int, lists: Sequence[Path]
) -> None:
    """Draws the labeled images and writes the list files that the config names.

    Args:
        config: The run. It has one labeled and one unlabeled source, each with a text file as its
            list.
        console: Prints which files were written.
        labeled: Number of labeled images.
        seed: Seed of the draw. The draw depends only on the seed and the lines, not on their
            order; with the same seed a smaller draw is part of a larger one.
        lists: Text files of lines to draw from. If empty: the images of the labeled source's folder
            that have label files and belong to no other source.

    Raises:
        MaskmillError: The config does not say where to write, there are too few images, or the
            files already hold another split.
    """
    sources = {role: _single_source(config, role) for role in _DRAWN}
    files = {role: _list_file(config, role, source) for role, source in sources.items()}
    _check_different_lists(sources, files)
    lines = _lines(lists) if lists else _ids_in_folder(config, sources)
    if not 0 < labeled < len(lines):
        what = f"cannot draw {labeled} labeled images from {len(lines)} and leave unlabeled ones"
        fix = f"draw 1 to {len(lines) - 1}" if len(lines) > 1 else "name a longer list with --from"
        raise DataError(what, where="--labeled", fix=fix)
    drawn = {*sorted(lines, key=lambda line: _rank(line, seed))[:labeled]}
    chosen: dict[Role, list[str]] = {
        "labeled": [line for line in lines if line in drawn],
        "unlabeled": [line for line in lines if line not in drawn],
    }
    texts = {files[role]: "".join(f"{line}\n" for line in own) for role, own in chosen.items()}
    for path, text in texts.items():
        if path.exists() and path.read_bytes() != os.fsencode(text):
            fix = "delete it, or name another file in the config"
            raise DataError("the file already holds another list", where=str(path), fix=fix)
    for path, text in texts.items():
        storage.write_bytes(path, os.fsencode(text))
    for role, path in files.items():
        console.line(f"{role}: {len(chosen[role]):,} of {len(lines):,}, seed {seed}: {path}")


def _single_source(config: Config, role: Role) -> Source:
    """Returns the only source of a role."""
    found = [
        source.create(config, name)
        for name, source in ingest_section(config).sources.items()
        if source.role == role
    ]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} sources have the role {role}"
    fix = f"use exactly one; its list file gets the {role} images"
    raise ConfigError(what, where=f"{config.path}: ingest.sources", fix=fix)


def _list_file(config: Config, role: Role, source: Source) -> Path:
    if source.list_file is not None:
        return source.list_file
    fix = "name the text file to write to: `ids` of a folder, `file` of a list"
    raise ConfigError(f"the {role} source has no list file", where=source.where, fix=fix)


def _check_different_lists(sources: Mapping[Role, Source], files: Mapping[Role, Path]) -> None:
    """Refuses the same file as the list of both roles, however its path is spelled."""
    if len({os.path.realpath(file) for file in files.values()}) < len(files):
        what = f"its list {files['labeled']} is also the list of {sources['unlabeled'].where}"
        fix = "name a file of its own for each source"
        raise ConfigError(what, where=sources["labeled"].where, fix=fix)


def _lines(lists: Sequence[Path]) -> list[str]:
    """Reads the lines of text files, each line once, in order; blanks around it stay."""
    lines: dict[str, None] = {}
    for path in lists:
        try:
            content = path.read_bytes()
        except OSError as error:
            what = f"cannot read the list: {error.strerror or error}"
            fix = "name a text file with one image a line"
            raise DataError(what, where=f"--from {path}", fix=fix) from error
        found = (line for line in text_list.lines(content) if text_list.stripped(line))
        lines |= {os.fsdecode(line): None for line in found}
    return [*lines]


def _ids_in_folder(config: Config, sources: Mapping[Role, Source]) -> list[str]:
    """Ids of the images of a folder that have label files and belong to no other source."""
    labeled = sources["labeled"]
    for origin in sources.values():
        if not isinstance(origin, FolderSource):
            fix = "name the lists to draw from with --from"
            what = "images can be drawn only from a source `folder`, and this is another kind"
            raise ConfigError(what, where=origin.where, fix=fix)
    assert isinstance(labeled, FolderSource)
    taken: set[str] = set()
    for name, source in ingest_section(config).sources.items():
        if source.role not in _DRAWN:
            taken |= {*source.create(config, name).list()["image"].to_pylist()}
    files = {key: path for key, path in labeled.labeled_files().items() if path not in taken}
    if wrong := [path for key, path in files.items() if not text_list.can_hold(key)]:
        names = ", ".join(repr(path) for path in wrong[:_SHOWN])
        more = f" and {len(wrong) - _SHOWN:,} more" if len(wrong) > _SHOWN else ""
        what = f"a list cannot hold these names: {names}{more}"
        fix = "rename them: without line breaks, in UTF-8"
        raise DataError(what, where=labeled.where, fix=fix)
    return [*files]


def _rank(line: str, seed: int) -> bytes:
    text = text_list.stripped(os.fsencode(line))
    return blake2b(os.fsencode(f"{seed}:") + text, digest_size=16).digest()
