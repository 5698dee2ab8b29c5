"""The errors a user can mend: each says what is wrong, where, and what would be right."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class MaskmillError(Exception):
    """Something the user can mend. The command line prints it as one line and exits with 1.

    Args:
        what: What is wrong, without a final full stop: "the folder is empty".
        where: The file, config key or image id it was found at.
        fix: What would be right, as an instruction: "put at least one image into it".
    """

    def __init__(self, what: str, *, where: str, fix: str) -> None:
        self.what = what
        self.where = where
        self.fix = fix
        super().__init__(f"{where}: {what}; {fix}")

    def __reduce__(self) -> tuple[object, ...]:
        """Lets the error travel from a worker process, keyword arguments and all."""
        return _rebuilt, (type(self), self.what, self.where, self.fix)


class ConfigError(MaskmillError):
    """The config file, or a `--set` override, does not describe a run."""


class DataError(MaskmillError):
    """Images, masks or lists are missing or contradict each other."""


class WeightsError(MaskmillError):
    """A model's weights are missing or are not those of the model."""


class StorageError(MaskmillError):
    """A manifest or a store cannot be written or read."""


def _rebuilt(kind: type[MaskmillError], what: str, where: str, fix: str) -> MaskmillError:
    return kind(what, where=where, fix=fix)


@contextmanager
def error_context(key: str) -> Iterator[None]:
    """Tells where in the config that is which raises: a component knows its own keys alone."""
    try:
        yield
    except MaskmillError as error:
        raise _rebuilt(type(error), error.what, f"{key}: {error.where}", error.fix) from error


def from_os_error(error: OSError) -> MaskmillError:
    """The one-line form of what the operating system refuses: full disk, no permission, ..."""
    where = str(error.filename or "disk")
    fixes = {
        errno.ENOSPC: "free some space and run again; what is done stays done",
        errno.EDQUOT: "free some of your quota and run again; what is done stays done",
        errno.EACCES: "give yourself permission, or set `workspace` to a folder of yours",
        errno.EROFS: "set `workspace` to a folder that can be written",
    }
    fix = fixes.get(error.errno or 0, "mend it and run again; what is done stays done")
    what = os.strerror(error.errno) if error.errno else str(error)
    return StorageError(what, where=where, fix=fix)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Adds the path to what the operating system refuses, where a library leaves it out."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
