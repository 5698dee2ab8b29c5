"""A folder that a user names for results, such as predictions: never mixed with other files.

A hidden file in it says what wrote it, and from what (its facts). A journal next to it has a line
for each finished piece, written after the piece's files, so work that was interrupted goes on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pipeline.config.config_section import Facts
from pipeline.engine.fact_diff import fact_changes
from pipeline.errors import DataError, StorageError
from pipeline.files import file_lock, storage

MARK = ".maskmill.json"
"""The file that says what wrote a folder."""
JOURNAL = ".maskmill-journal.jsonl"
"""The finished pieces of a folder that is not finished."""
TEMPORARY = ".maskmill-unfinished"
"""The folder in which files are written before they are moved to their places."""
_ANOTHER = "name another folder with --out, or move this one away"
_SHOWN = 3
"""Differing facts that an error names."""


class OutputFolder:
    """A folder of results, locked for this process; `output_folder` opens one.

    Attributes:
        path: The folder.
        is_finished: Whether an earlier call has finished it.
    """

    def __init__(self, path: Path, mark: Mapping[str, Any], journal: IO[str]) -> None:
        self.path = path
        self.is_finished: bool = mark["finished"]
        self._mark = {**mark}
        self._journal = journal

    def pieces(self) -> list[dict[str, Any]]:
        """The pieces in the journal, in the order in which they were added."""
        self._journal.seek(0)
        return [json.loads(line) for line in self._journal]

    def each_piece(self) -> Iterator[dict[str, Any]]:
        """The pieces in the journal, one after the other; several callers may be reading."""
        with (self.path / JOURNAL).open(encoding="utf-8") as journal:
            for line in journal:
                yield json.loads(line)

    def write(self, name: str, content: bytes) -> None:
        """Writes a file of a piece, whole or not at all.

        Args:
            name: Its path below the folder.
            content: Its bytes.
        """
        temporary = self.path / TEMPORARY
        with storage.replacing(self.path / name, temporary, durable=False) as file:
            file.write_bytes(content)

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """A temporary file to fill, which becomes the file of this name below the folder."""
        with storage.replacing(self.path / name, self.path / TEMPORARY) as temporary:
            yield temporary

    def add(self, piece: Mapping[str, Any]) -> None:
        """Records a finished piece, after its files were written."""
        self._journal.write(json.dumps(piece, ensure_ascii=False) + "\n")
        self._journal.flush()

    def finish(self) -> None:
        """Marks the folder as finished, and removes the journal; nothing is added after it."""
        _write_mark(self.path, {**self._mark, "finished": True})
        storage.remove(self.path / JOURNAL)


def read_facts(path: Path, what: str) -> Facts | None:
    """The facts of a finished folder of results of a kind; None if it is none.

    Raises:
        DataError: The file that says so is damaged.
    """
    mark = _read_mark(path)
    if mark is None or mark["what"] != what or not mark["finished"]:
        return None
    facts: Facts = mark["facts"]
    return facts


@contextmanager
def output_folder(path: Path, what: str, facts: Facts) -> Iterator[OutputFolder]:
    """Opens a folder for results, and creates it if there is none.

    Args:
        path: The folder, on this machine.
        what: The kind of results: "predictions".
        facts: Everything that the results depend on, except the inputs of each piece.

    Raises:
        DataError: The folder holds other things, or results of other facts.
        StorageError: Another command works on it, or its disk has no locks.
    """
    _check_empty_or_own(path)
    path.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        storage.remove(path / TEMPORARY)  # what a killed call left
        mark = _read_mark(path)
        if mark is None:
            mark = {"what": what, "facts": facts, "finished": False}
            _write_mark(path, mark)
        _check_same(path, mark, what, facts)
        with _opened_journal(path) as journal:
            yield OutputFolder(path, mark, journal)
        storage.remove(path / TEMPORARY)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Locks a folder against other commands."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        file_lock.lock(descriptor, path, "name a folder on a local disk with --out", wait=False)
        yield
    except BlockingIOError as error:
        what = "another command is writing into this folder"
        raise StorageError(what, where=str(path), fix="wait until it ends") from error
    finally:
        os.close(descriptor)


def _check_empty_or_own(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise DataError("there is a file of this name", where=str(path), fix=_ANOTHER)
    if not path.is_dir() or (path / MARK).exists():
        return
    # A kill in the very first moment leaves the folder of temporary files alone.
    if {each.name for each in path.iterdir()} - {TEMPORARY}:
        what = "the folder is not empty, and Maskmill did not write what is in it"
        raise DataError(what, where=str(path), fix=_ANOTHER)


def _check_same(path: Path, mark: Mapping[str, Any], what: str, facts: Facts) -> None:
    if mark["what"] != what:
        raise DataError(f"the folder holds {mark['what']}", where=str(path), fix=_ANOTHER)
    if changes := fact_changes(mark["facts"], facts):
        shown = ", ".join(change.text for change in changes[:_SHOWN])
        raise DataError(f"the folder holds other {what}: {shown}", where=str(path), fix=_ANOTHER)


def _read_mark(path: Path) -> dict[str, Any] | None:
    if not (path / MARK).exists():
        return None
    try:
        mark: dict[str, Any] = json.loads(storage.read_bytes(path / MARK))
        mark["what"], mark["facts"], mark["finished"]
    except (ValueError, TypeError, KeyError) as error:
        what = "this file, which says what wrote the folder, is damaged"
        raise DataError(what, where=str(path / MARK), fix=_ANOTHER) from error
    return mark


def _write_mark(path: Path, mark: Mapping[str, Any]) -> None:
    with storage.replacing(path / MARK, path / TEMPORARY) as temporary:
        temporary.write_text(json.dumps(mark, indent=1, ensure_ascii=False), encoding="utf-8")


@contextmanager
def _opened_journal(path: Path) -> Iterator[IO[str]]:
    """The journal, without a last line that a kill cut off."""
    journal = path / JOURNAL
    if journal.exists():
        content = storage.read_bytes(journal)
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with storage.replacing(journal, path / TEMPORARY) as temporary:
                temporary.write_bytes(content[:whole])
    with journal.open("a+", encoding="utf-8", newline="\n") as file:
        yield file
