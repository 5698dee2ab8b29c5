import errno
import pickle
from pathlib import Path

import pytest

from pipeline.errors import DataError, MaskmillError, StorageError, from_os_error, writing


def test_an_error_says_where_what_and_what_would_be_right() -> None:
    error = DataError("the folder is empty", where="config.yaml: key", fix="fill it")
    assert str(error) == "config.yaml: key: the folder is empty; fill it"


def test_an_error_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(DataError("what", where="where", fix="fix")))
    assert type(error) is DataError
    assert (error.what, error.where, error.fix) == ("what", "where", "fix")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            OSError(errno.ENOSPC, "cannot flush", "/a/b"),
            "/a/b: No space left on device; free some space and run again; what is done stays done",
        ),
        (
            PermissionError(errno.EACCES, "no", "/a/b"),
            "/a/b: Permission denied; "
            "give yourself permission, or set `workspace` to a folder of yours",
        ),
        (
            OSError(errno.EIO, "Input/output error"),
            "disk: Input/output error; fix it and run again; what is done stays done",
        ),
        (OSError("odd"), "disk: odd; fix it and run again; what is done stays done"),
    ],
)
def test_what_the_system_refuses_becomes_one_line(error: OSError, text: str) -> None:
    found = from_os_error(error)
    assert isinstance(found, MaskmillError)
    assert type(found) is StorageError
    assert str(found) == text


def test_a_path_is_added_where_there_is_none() -> None:
    with pytest.raises(OSError, match="full") as added, writing(Path("/a")):
        raise OSError(errno.ENOSPC, "full")
    assert added.value.filename == "/a"
    with pytest.raises(OSError, match="full") as kept, writing(Path("/a")):
        raise OSError(errno.ENOSPC, "full", "/b")
    assert kept.value.filename == "/b"
