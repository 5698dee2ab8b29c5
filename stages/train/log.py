"""The log of a training: JSON lines, cut where a resumed training goes on."""

from collections.abc import Sequence
from pathlib import Path

from pipeline import storage


class TrainingLog:
    """A text file that grows by lines, in an object store only when it is flushed.

    Args:
        path: The file; what it holds is replaced.
        lines: What it begins with.
        writes: Whether this is the process that writes it.
    """

    def __init__(self, path: Path, lines: Sequence[str], *, writes: bool = True) -> None:
        self._path = path
        self._lines = [*lines]
        self._writes = writes
        if writes:
            storage.write_bytes(path, self._text())

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

    def _text(self) -> bytes:
        return "".join(f"{line}\n" for line in self._lines).encode()
