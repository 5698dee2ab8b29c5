"""The log of a training: JSON lines, which a resumed training goes on with from its checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.files import storage


class TrainingLog:
    """A text file that grows by lines, in an object store only when it is flushed.

    What a training goes on from has its lines too: whatever became of the file, none is missing
    and none stands there twice.

    Args:
        path: The file.
        writes: Whether this is the process that writes it.
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self._path = path
        self._writes = writes
        self._lines: list[str] = []

    @property
    def lines(self) -> Sequence[str]:
        """All of them."""
        return self._lines

    def begin(self) -> None:
        """Replaces what the file holds by the lines there are."""
        if self._writes:
            storage.write_bytes(self._path, self._text())

    def append(self, line: str) -> None:
        """Adds a line."""
        self._lines.append(line)
        if self._writes and not storage.is_object(self._path):
            with self._path.open("a", encoding="utf-8") as handle:
                handle.write(f"{line}\n")

    def flush(self) -> None:
        """Has all lines stored."""
        if self._writes and storage.is_object(self._path):
            storage.write_bytes(self._path, self._text())

    def state_dict(self) -> dict[str, Any]:
        """The lines."""
        return {"lines": [*self._lines]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up the lines of `state_dict`."""
        self._lines = [*state["lines"]]

    def _text(self) -> bytes:
        return "".join(f"{line}\n" for line in self._lines).encode()
