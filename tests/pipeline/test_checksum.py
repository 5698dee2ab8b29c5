"""What a large file is taken for, without reading it each time."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.files import checksum as module
from pipeline.files.checksum import checksum, checksum_of_bytes, digest

LARGE = bytes(range(256)) * (2**23 // 256)


@pytest.fixture
def weights(tmp_path: Path, machine_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A large file that counts as one not touched for long."""
    monkeypatch.setattr(module, "_SETTLED_NS", -1)
    path = tmp_path / "weights.pth"
    path.write_bytes(LARGE)
    return path


def entries(machine_cache: Path) -> list[Path]:
    return list((machine_cache / "checksums").glob("*"))


def test_a_large_file_is_read_once(weights: Path, machine_cache: Path) -> None:
    found = digest(weights)
    assert found == hashlib.sha256(LARGE).hexdigest()
    assert checksum(weights) == f"weights.pth sha256:{found[:12]}"
    [entry] = entries(machine_cache)
    # What is remembered is what counts from then on, but not where damage is looked for.
    entry.write_text(entry.read_text().replace(found, 64 * "0"))
    assert digest(weights) == 64 * "0"
    assert checksum_of_bytes(weights) == found


def test_by_any_way_to_it_a_file_is_the_same(weights: Path, machine_cache: Path) -> None:
    link = weights.with_name("link.pth")
    link.symlink_to(weights)
    assert digest(link) == digest(weights)
    assert len(entries(machine_cache)) == 1


CHANGES = ["content", "content, time set back", "another file in its place", "cut"]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_file_is_read_again(weights: Path, change: str) -> None:
    digest(weights)
    before, content = weights.stat(), b"x" + LARGE[1:]
    if change == "another file in its place":
        weights.with_name("new").write_bytes(content)
        weights.with_name("new").rename(weights)
    elif change == "cut":
        content = LARGE[:-1]
        os.truncate(weights, len(content))
    else:
        weights.write_bytes(content)
    if change != "content":
        os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert digest(weights) == hashlib.sha256(content).hexdigest()


DAMAGES: dict[str, Callable[[str], str]] = {
    "cut": lambda text: text[:40],
    "no object": lambda text: "[1, 2]",
    "no digest": lambda text: json.dumps({**json.loads(text), "sha256": "abc"}),
    "no text": lambda text: "\0",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_not_believed(weights: Path, machine_cache: Path, damage: str) -> None:
    found = digest(weights)
    [entry] = entries(machine_cache)
    entry.write_text(DAMAGES[damage](entry.read_text()))
    assert digest(weights) == found
    assert json.loads(entry.read_text())["sha256"] == found  # mended


def test_a_file_just_written_may_be_written_again(tmp_path: Path, machine_cache: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(LARGE)
    digest(path)
    assert entries(machine_cache) == []


def test_small_files_are_read(weights: Path, machine_cache: Path) -> None:
    weights.write_bytes(b"small")
    assert digest(weights) == hashlib.sha256(b"small").hexdigest()
    assert entries(machine_cache) == []


def test_where_nothing_can_be_kept_files_are_read(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MASKMILL_CACHE", str(tmp_path / "file"))
    assert digest(weights) == hashlib.sha256(LARGE).hexdigest()
