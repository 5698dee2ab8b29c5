"""Draws which images of a list, or a folder, are labeled and which are not, and saves it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

from pipeline.config.config import Config
from pipeline.console import Console
from pipeline.errors import ConfigError, DataError
from pipeline.files import storage
from stages.ingest.config import Role, ingest_section
from stages.ingest.sources.base import Source
from stages.ingest.sources.folder import FolderSource

_DRAWN: tuple[Role, ...] = ("labeled", "unlabeled")


def draw_split(
    config: Config, console: Console, *, labeled: int, seed: int, lists: Sequence[Path]
) -> None:
    """Writes the list files of the labeled and the unlabeled source, which the config names.

    Args:
        config: The run; has one source of either role, each with a text file as its list.
        console: Told what was written.
        labeled: Number of labeled images.
        seed: Of the draw. Which images are drawn depends on it and on the lines alone, not on their
            order; of one seed a smaller draw is part of a larger one.
        lists: Text files whose lines to draw from. None: the images of the labeled source's folder
            that have label files, without those of any other source.

    Raises:
        MaskmillError: The config does not say where to write, there are too few images, or the
            files hold another split.
    """
    sources = {role: _only(config, role) for role in _DRAWN}
    files = {role: _list_file(config, role, source) for role, source in sources.items()}
    _check_apart(sources, files)
    lines = _lines(lists) if lists else _of_folder(config, sources["labeled"])
    if not 0 < labeled < len(lines):
        what = f"{labeled} of {len(lines)} images cannot be drawn with some left over"
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
            raise DataError("there is another list already", where=str(path), fix=fix)
    for path, text in texts.items():
        storage.write_bytes(path, os.fsencode(text))
    for role, path in files.items():
        console.line(f"{role}: {len(chosen[role]):,} of {len(lines):,}, seed {seed}: {path}")


def _only(config: Config, role: Role) -> Source:
    """The one source of a role."""
    found = [
        source.create(config, name)
        for name, source in ingest_section(config).sources.items()
        if source.role == role
    ]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} sources are {role}"
    fix = f"name one, whose list file the {role} images are written to"
    raise ConfigError(what, where=f"{config.path}: ingest.sources", fix=fix)


def _list_file(config: Config, role: Role, source: Source) -> Path:
    if source.list_file is not None:
        return source.list_file
    fix = "name the text file to write to: `ids` of a folder, `file` of a list"
    raise ConfigError(f"the {role} source has no list of its own", where=source.where, fix=fix)


def _check_apart(sources: Mapping[Role, Source], files: Mapping[Role, Path]) -> None:
    """Refuses one file as the list of both roles, however it is spelled."""
    if len({os.path.realpath(file) for file in files.values()}) < len(files):
        what = f"its list {files['labeled']} is that of {sources['unlabeled'].where} too"
        fix = "name a file for each"
        raise ConfigError(what, where=sources["labeled"].where, fix=fix)


def _lines(lists: Sequence[Path]) -> list[str]:
    """The lines of text files, each once, in order."""
    lines: dict[str, None] = {}
    for path in lists:
        try:
            content = path.read_bytes()
        except OSError as error:
            what = f"cannot read the list: {error.strerror or error}"
            fix = "name a text file of one image a line"
            raise DataError(what, where=f"--from {path}", fix=fix) from error
        stripped = (line.strip() for line in content.removeprefix(b"\xef\xbb\xbf").splitlines())
        lines |= {os.fsdecode(line): None for line in stripped if line}
    return [*lines]


def _of_folder(config: Config, labeled: Source) -> list[str]:
    """Ids of a folder's images that have label files and are in no source but the two drawn for."""
    if not isinstance(labeled, FolderSource):
        fix = "name the lists to draw from with --from"
        raise ConfigError("a list has no folder to draw from", where=labeled.where, fix=fix)
    taken: set[str] = set()
    for name, source in ingest_section(config).sources.items():
        if source.role not in _DRAWN:
            taken |= {*source.create(config, name).list()["image"].to_pylist()}
    return [key for key, path in labeled.labeled_files().items() if path not in taken]


def _rank(line: str, seed: int) -> bytes:
    return blake2b(os.fsencode(f"{seed}:{line}"), digest_size=16).digest()
