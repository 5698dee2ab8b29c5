"""Keys are literal: `*`, `?`, `[` and `?versionId=` are letters of names, not patterns."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.files import file_stamps, locations, s3_objects, storage
from tests.pipeline.object_store.twins import Command, upload

NAMES = ["e?", "e*", "[e]", "e#1", "e%20", "e 1", "é", "e?versionId=1", "e&=+", "e~$'\"", "{e}"]
OTHERS = ["e1", "e2", "e", "ee", "e?versionId"]


@pytest.fixture
def folder(bucket: str) -> Path:
    """A folder of objects with such names, and of others that fit them as patterns."""
    for name in (*NAMES, *OTHERS):
        for place in (f"{bucket}/x/{name}", f"{bucket}/x/in {name}/deep"):
            s3_objects.client().pipe_file(place, place.encode())
    return locations.location(f"{bucket}/x")


def addresses(folder: Path) -> set[str]:
    return {address for address, _, _ in s3_objects.listed(str(folder))}


def test_an_object_is_the_one_of_its_name_and_only_it_moves(folder: Path) -> None:
    before = addresses(folder)
    names = [*file_stamps.files(str(folder))]
    assert {*names} == before
    for name in NAMES:
        path, content = folder / name, f"{folder}/{name}".encode()
        assert str(path) == f"{folder}/{name}"
        assert storage.read_bytes(path) == content
        assert storage.read_range(str(path), 0, 5) == b"s3://"
        assert storage.read_all([path, folder / "e1"])[0] == content
        assert storage.size_of(path) == len(content)
        assert path.exists()
        assert file_stamps.stamp(str(path)) is not None
        storage.move(path, folder / f"moved {name}")
        assert storage.read_bytes(folder / f"moved {name}") == content
        before = before - {str(path)} | {f"{folder}/moved {name}"}
    assert addresses(folder) == before


def test_only_what_is_named_is_deleted(folder: Path) -> None:
    left = addresses(folder)
    for number, name in enumerate(NAMES):
        storage.remove(folder / f"in {name}")
        if number % 2:
            storage.remove(folder / name)
        else:
            (folder / name).unlink()
        left -= {f"{folder}/{name}", f"{folder}/in {name}/deep"}
        assert addresses(folder) == left, name


def test_patterns_belong_to_what_is_below_a_folder(folder: Path) -> None:
    everywhere = [*map(str, storage.glob(folder, "**/deep"))]
    for name in NAMES:
        found = storage.glob(folder / f"in {name}", "d*")
        assert [str(path) for path in found] == [f"{folder}/in {name}/deep"]
        assert f"{folder}/in {name}/deep" in everywhere
    assert storage.glob(folder / "none", "*") == []


def test_folders_on_a_disk_are_literal_too(tmp_path: Path) -> None:
    for name in (*NAMES, *OTHERS):
        (tmp_path / f"in {name}").mkdir()
        (tmp_path / f"in {name}" / "deep").touch()
    for name in NAMES:
        folder = tmp_path / f"in {name}"
        assert storage.glob(folder, "d*") == [folder / "deep"]


@pytest.mark.slow
def test_a_workspace_with_brackets_is_whole(
    data: Path,
    bucket: str,
    stage_one: dict[str, Any],
    write_config: Callable[..., Path],
    maskmill: Command,
) -> None:
    for image in sorted((data / "ood/images").iterdir()):
        image.rename(image.with_name(f"[{image.stem}]?versionId=1{image.suffix}"))
    for mask in sorted((data / "ood/masks").glob("*")):
        mask.rename(mask.with_name(f"[{mask.stem}]?versionId=1{mask.suffix}"))
    upload(data, f"{bucket}/data[1]")
    work = f"{bucket}/work[A]"
    config = write_config({**stage_one, "workspace": work, "data": f"{bucket}/data[1]"})
    done = maskmill("run", "--config", config)
    assert done.returncode == 0, done.stderr
    done = maskmill("verify", "--config", config)
    assert (done.returncode, "no damage" in done.stdout) == (0, True), done.stdout
    assert "nothing to delete" in maskmill("gc", "--dry-run", "--config", config).stdout
    again = maskmill("run", "--config", config)
    assert "nothing to do" in again.stderr
