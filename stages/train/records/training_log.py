"""The log of a training: JSON lines that are part of its checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import writing
from pipeline.files import storage


class TrainingLog:
    """A text file that grows by lines; in an object store only `flush` writes it.

    The checkpoint holds the lines too. After a resume no line is missing or doubled, whatever
    happened to the file.

    Args:
        path: The file.
        writes: Whether this process writes it.
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self._path = path
        self._writes = writes
        self._lines: list[str] = []

    @property
    def lines(self) -> Sequence[str]:
        """All lines."""
        return self._lines

    def begin(self) -> None:
        """Replaces the content of the file by the present lines."""
        if self._writes:
            storage.write_bytes(self._path, self._text())

    def append(self, line: str) -> None:
        """Adds a line."""
        self._lines.append(line)
        if self._writes and not storage.is_object(self._path):
            with writing(self._path), self._path.open("a", encoding="utf-8") as handle:
                handle.write(f"{line}\n")

    def flush(self) -> None:
        """Stores all lines."""
        if self._writes and storage.is_object(self._path):
            storage.write_bytes(self._path, self._text())

    def state_dict(self) -> dict[str, Any]:
        """The lines."""
        return {"lines": [*self._lines]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from the lines of `state_dict`."""
        self._lines = [*state["lines"]]

    def _text(self) -> bytes:
        return "".join(f"{line}\n" for line in self._lines).encode()
