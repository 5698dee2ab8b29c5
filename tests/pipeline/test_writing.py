"""Files on a disk are replaced as a whole, durable or not."""

from pathlib import Path

import pytest

from pipeline.files import storage


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
