"""Errors that a user can fix: each says what is wrong, where, and how to fix it."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_SHOWN = 5
"""Problems of one remedy that are printed."""


class MaskmillError(Exception):
    """A problem that the user can fix. The command line prints it as one line and exits with 1.

    Args:
        what: What is wrong, without a final full stop: "the folder is empty".
        where: The file, config key or image id with the problem.
        fix: What to do, as an instruction: "put at least one image into it".
    """

    def __init__(self, what: str, *, where: str, fix: str) -> None:
        self.what = what
        self.where = where
        self.fix = fix
        super().__init__(f"{where}: {what}; {fix}")

    def __reduce__(self) -> tuple[object, ...]:
        """Makes the error picklable, so that worker processes can raise it."""
        return _rebuilt, (type(self), self.what, self.where, self.fix)

    @property
    def lines(self) -> list[str]:
        """The lines to print."""
        return [str(self)]


class ConfigError(MaskmillError):
    """The config file, or a `--set` override, does not describe a run."""


class DataError(MaskmillError):
    """Images, masks or lists are missing, or do not fit together."""


class WeightsError(MaskmillError):
    """The weights of a model are missing, or belong to another model."""


class StorageError(MaskmillError):
    """A manifest or a label store cannot be read or written."""


class FaultsError(MaskmillError):
    """Several problems that were found together.

    Of those that have the same remedy the first few are printed, and the others counted.

    Args:
        faults: The problems; at least two.
    """

    def __init__(self, faults: Sequence[MaskmillError]) -> None:
        self.faults = tuple(faults)
        super().__init__(f"{len(faults)} faults", where="all of them", fix="see each of them")

    def __reduce__(self) -> tuple[object, ...]:
        """See `MaskmillError.__reduce__`."""
        return type(self), (self.faults,)

    def __str__(self) -> str:
        return "\n".join(self.lines)

    @property
    def lines(self) -> list[str]:
        """See `MaskmillError.lines`."""
        alike: dict[str, list[MaskmillError]] = {}
        for fault in self.faults:
            alike.setdefault(fault.fix, []).append(fault)
        found = [f"{len(self.faults)} faults"]
        for same in alike.values():
            found += [str(fault) for fault in same[:_SHOWN]]
            if more := same[_SHOWN:]:
                found.append(f"and {len(more)} more that need the same")
        return found


class DataFaultsError(FaultsError, DataError):
    """Several problems, all of them of images, masks or lists."""


def together(faults: Sequence[MaskmillError]) -> MaskmillError:
    """One error for at least one problem: the problem itself, or a `FaultsError`."""
    if len(faults) == 1:
        return faults[0]
    is_data = all(isinstance(fault, DataError) for fault in faults)
    return DataFaultsError(faults) if is_data else FaultsError(faults)


def _rebuilt(kind: type[MaskmillError], what: str, where: str, fix: str) -> MaskmillError:
    return kind(what, where=where, fix=fix)


@contextmanager
def error_context(key: str) -> Iterator[None]:
    """Prefixes the errors of a component, which knows only its own keys, with its config key."""
    try:
        yield
    except MaskmillError as error:
        each = error.faults if isinstance(error, FaultsError) else (error,)
        faults = [_rebuilt(type(one), one.what, f"{key}: {one.where}", one.fix) for one in each]
        raise together(faults) from error


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
