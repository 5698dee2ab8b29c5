"""Errors that a user can fix: each says what is wrong, where, and how to fix it."""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self, TypeVar

from pipeline.redaction import without_secrets

_SHOWN = 5
"""Problems of one remedy that are printed."""


class MaskmillError(Exception):
    """A problem that the user can fix. The command line prints it as one line and exits with 1.

    Args:
        what: What is wrong, without a final full stop: "the folder is empty".
        where: The file, config key or image id with the problem.
        fix: What to do, as an instruction: "put at least one image into it".

    Attributes:
        others: Further errors that were found together with this one; `together` sets them.
    """

    def __init__(self, what: str, *, where: str, fix: str) -> None:
        self.what, self.where, self.fix = map(without_secrets, (what, where, fix))
        self.others: tuple[MaskmillError, ...] = ()
        super().__init__(f"{self.where}: {self.what}; {self.fix}")

    def moved(self, where: str) -> Self:
        """The same error, about another place."""
        return type(self)(self.what, where=where, fix=self.fix)

    def __reduce__(self) -> tuple[object, ...]:
        """Makes the error picklable, so that worker processes can raise it."""
        return _rebuilt, (type(self), self.what, self.where, self.fix, self.others)

    @property
    def lines(self) -> list[str]:
        """The lines to print: of errors with the same remedy the first few, and a count."""
        alike: dict[str, list[str]] = {}
        for error in (self, *self.others):
            alike.setdefault(error.fix, []).append(str(error))
        found = []
        for same in alike.values():
            found += same[:_SHOWN]
            if more := same[_SHOWN:]:
                found.append(f"and {len(more)} more that need the same")
        return found


class ConfigError(MaskmillError):
    """The config file, or a `--set` override, does not describe a run."""


class DataError(MaskmillError):
    """Images, masks or lists are missing, or do not fit together."""


class WeightsError(MaskmillError):
    """The weights of a model are missing, or belong to another model."""


class StorageError(MaskmillError):
    """A manifest or a label store cannot be read or written."""


E = TypeVar("E", bound=MaskmillError)


def together(errors: Iterable[E]) -> E:
    """The first of several errors, with the others attached; each text once."""
    first, *others = {str(error): error for error in errors}.values()
    first.others = tuple(others)
    return first


def _rebuilt(
    kind: type[MaskmillError],
    what: str,
    where: str,
    fix: str,
    others: tuple[MaskmillError, ...] = (),
) -> MaskmillError:
    error = kind(what, where=where, fix=fix)
    error.others = others
    return error


@contextmanager
def error_context(key: str) -> Iterator[None]:
    """Prefixes the errors of a component, which knows only its own keys, with its config key."""
    try:
        yield
    except MaskmillError as error:
        faults = (error, *error.others)
        raise together(fault.moved(f"{key}: {fault.where}") for fault in faults) from error


def from_os_error(error: OSError) -> MaskmillError:
    """An error of the operating system (full disk, no permission) as one line for the user."""
    where = str(error.filename or "disk")
    fixes = {
        errno.ENOSPC: "free some space and run again; what is done stays done",
        errno.EDQUOT: "free some of your quota and run again; what is done stays done",
        errno.EACCES: "give yourself permission, or set `workspace` to a folder of yours",
        errno.EROFS: "set `workspace` to a writable folder",
    }
    fix = fixes.get(error.errno or 0, "fix it and run again; what is done stays done")
    what = os.strerror(error.errno) if error.errno else str(error)
    return StorageError(what, where=where, fix=fix)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Adds the path to errors of the operating system in which a library left it out."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
