"""Files on a disk are replaced as a whole, durable or not."""

import errno
import os
from pathlib import Path

import pytest

from pipeline.files import file_stamps, storage


def fill_half(path: Path, durable: bool) -> None:
    with storage.replacing(path, durable=durable) as temporary:
        temporary.write_bytes(b"half")
        assert storage.temporaries(path.parent) == [temporary]
        raise ZeroDivisionError


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_the_old_one_or_the_whole_new_one(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "new" / "folder" / "file"
    storage.write_bytes(path, b"before", durable=durable)
    with pytest.raises(ZeroDivisionError):
        fill_half(path, durable)
    assert path.read_bytes() == b"before"
    storage.write_bytes(path, b"after", durable=durable)
    assert path.read_bytes() == b"after"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("durable", [True, False])
def test_an_error_names_the_file_that_was_wanted(tmp_path: Path, durable: bool) -> None:
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(IsADirectoryError) as error:
        storage.write_bytes(tmp_path / "folder", b"", durable=durable)
    assert str(tmp_path / "folder") in str(error.value)
    assert storage.temporaries(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_disk_that_fails_does_not_say_that_a_file_is_gone(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In any version of Python: some take every error for an answer."""
    (tmp_path / "there").touch()
    assert storage.exists(tmp_path / "there")
    assert not storage.exists(tmp_path / "elsewhere")
    assert not storage.exists(tmp_path / "there/below")
    assert not storage.exists(tmp_path / "a\0b")
    assert file_stamps.missing([tmp_path / "there", tmp_path / "x"]) == {tmp_path / "x"}

    def fail(path: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(os, "stat", fail)
    for ask in (storage.exists, lambda path: file_stamps.missing([path])):
        with pytest.raises(OSError, match=os.strerror(number)):
            ask(tmp_path / "there")
