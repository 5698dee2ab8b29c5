"""Files that stay in their folder: neither `..`, an absolute path nor a link may lead out of it.

An object store has no links; a `..` in an address is taken for what it means in a path.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.files import storage


class Root:
    """A folder that a source reads, and must not leave.

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
            storage.forget_stamps(self._real)
        self._real_parents: dict[str, str] = {}

    def problem(self, path: str) -> str | None:
        """Why a path must not be read, as a row's message; None where it may."""
        if "\0" in path:
            return "its name holds a NUL byte"
        if self._is_object:
            plain = storage.normalized(path)
            if plain == self._real:
                return "a folder, no file"
            return None if _is_below(plain, self._real) else f"leads out of {self.folder}"
        if self._follow_links:
            plain = os.path.abspath(path)
            outside = not _is_below(plain, os.path.abspath(self.folder))
            outside = outside and not _is_below(plain, self._real)
        else:
            outside = not _is_below(self._resolved(path), self._real)
        if not outside:
            return None
        is_link = _is_below(os.path.abspath(path), os.path.abspath(self.folder))
        fix = "; set `follow_links: true` where links may" if is_link else ""
        return f"leads out of {self.folder}{fix}"

    def files(self) -> Iterator[tuple[str, str | None]]:
        """Every file below the folder with its problem, if any.

        A linked folder is walked where links are followed, passed over where it leads to another
        part of the folder, and else counts as a file with a problem.

        Raises:
            OSError: A folder cannot be listed: its images are not gone.
            StorageError: The object store does not answer.
        """
        if self._is_object:
            yield from ((address, None) for address in storage.files(self._real))
            return
        waiting, walked = [self.folder], {self._real}
        while waiting:
            with os.scandir(waiting.pop()) as found:
                entries = list(found)
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
                    elif real not in walked:
                        walked.add(real)  # links among such folders would be walked for ever
                        waiting.append(entry.path)

    def _resolved(self, path: str) -> str:
        """A path without links; those of its folder are looked up once."""
        parent, name = os.path.split(path)
        if name in ("", ".", ".."):
            return os.path.realpath(path)
        if parent not in self._real_parents:
            self._real_parents[parent] = os.path.realpath(parent)
        direct = os.path.join(self._real_parents[parent], name)
        return os.path.realpath(direct) if os.path.islink(direct) else direct


def plainly(path: str) -> str:
    """A path or address in plain spelling, so that a file has one name: without `.`, `//`, `..`.

    On a disk a `..` stays behind what is no folder, or is a link: without it that would be another
    file, or a file where there is none.
    """
    if storage.is_object(path):
        return storage.normalized(path)  # an object is found by its very name alone
    is_plain = not ("//" in path or "/." in path or path.startswith("."))
    if is_plain or "\0" in path:  # as a rule, and there may be a million
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
    """Whether it is a folder, and neither a link to one nor a step back."""
    return os.path.basename(path) != ".." and os.path.isdir(path) and not os.path.islink(path)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
