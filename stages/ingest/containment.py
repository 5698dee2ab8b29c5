"""Keeps a source in its folder: no `..`, absolute path or link may lead out of it.

An object store has no links; a `..` in an address means what it means in a path.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.files import file_stamps, storage
from stages.ingest.file_kind import is_hidden


class Root:
    """A folder that a source reads and must not leave.

    Args:
        folder: The folder, which may be a link itself, or its address in an object store.
        follow_links: Whether links below it may lead out of it.
    """

    def __init__(self, folder: Path, *, follow_links: bool) -> None:
        self.folder = str(folder)
        self._follow_links = follow_links
        self._is_object = storage.is_object(folder)
        self._real = os.path.realpath(self.folder)
        if self._is_object:
            self._real = storage.normalized(self.folder)
            file_stamps.forget_stamps(self._real)
        self._real_parents: dict[str, str] = {}

    def problem(self, path: str) -> str | None:
        """Says why a path must not be read, as the message of a row; None if it may be read."""
        if "\0" in path:
            return "its name holds a NUL byte"
        if self._is_object:
            normalized = storage.normalized(path)
            if normalized == self._real:
                return "a folder, no file"
            return None if _is_below(normalized, self._real) else f"leads out of {self.folder}"
        if self._follow_links:
            absolute = os.path.abspath(path)
            outside = not _is_below(absolute, os.path.abspath(self.folder))
            outside = outside and not _is_below(absolute, self._real)
        else:
            outside = not _is_below(self._resolved(path), self._real)
        if not outside:
            return None
        is_link = _is_below(os.path.abspath(path), os.path.abspath(self.folder))
        fix = "; set `follow_links: true` where links may" if is_link else ""
        return f"leads out of {self.folder}{fix}"

    def files(self) -> Iterator[tuple[str, str | None]]:
        """Yields every file below the folder with its problem, if any; hidden ones too.

        If links are followed, a linked folder is searched. If not, it is skipped if it leads to
        another part of this folder, and otherwise yielded as a file with a problem. A hidden folder
        that cannot be listed is yielded as a file.

        Raises:
            OSError: A folder cannot be listed. Its images must not count as gone.
            StorageError: The object store does not answer.
        """
        if self._is_object:
            yield from ((address, None) for address in file_stamps.files(self._real))
            return
        waiting, visited = [self.folder], {self._real}
        while waiting:
            folder = waiting.pop()
            try:
                with os.scandir(folder) as found:
                    entries = list(found)
            except PermissionError:
                if not is_hidden(folder[len(self.folder) :].lstrip("/")):
                    raise
                yield folder, None
                continue
            for entry in entries:
                if not entry.is_symlink():
                    if entry.is_dir():
                        waiting.append(entry.path)
                    else:
                        yield entry.path, None
                elif not os.path.isdir(entry.path):
                    yield entry.path, self.problem(entry.path)
                elif not _is_below(real := os.path.realpath(entry.path), self._real):
                    if not self._follow_links:
                        yield entry.path, self.problem(entry.path)
                    elif real not in visited:
                        visited.add(real)  # links may form a cycle
                        waiting.append(entry.path)

    def _resolved(self, path: str) -> str:
        """A path without links; the folder's own links are resolved once and cached."""
        parent, name = os.path.split(path)
        if name in ("", ".", ".."):
            return os.path.realpath(path)
        if parent not in self._real_parents:
            self._real_parents[parent] = os.path.realpath(parent)
        direct = os.path.join(self._real_parents[parent], name)
        return os.path.realpath(direct) if os.path.islink(direct) else direct


def normalized_path(path: str) -> str:
    """A path or address without `.`, `//` and `..`, so that every file has one spelling.

    On a disk a `..` stays if what is before it is a link, or not a folder: without the `..` the
    path would lead to another file.
    """
    if storage.is_object(path):
        return storage.normalized(path)
    is_normalized = not ("//" in path or "/." in path or path.startswith("."))
    if is_normalized or "\0" in path:  # fast, as there may be a million paths
        return path
    steps: list[str] = []
    start = "/" if path.startswith("/") else ""
    for step in path.split("/"):
        if step == ".." and steps and _is_folder(start + "/".join(steps)):
            steps.pop()
        elif step not in ("", "."):
            steps.append(step)
    return start + "/".join(steps) or "."


def _is_folder(path: str) -> bool:
    """Whether a path is a folder, and neither a link to one nor ends with `..`."""
    return os.path.basename(path) != ".." and os.path.isdir(path) and not os.path.islink(path)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
