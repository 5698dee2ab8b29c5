"""Files that are exchanged while size and mtime stay, as tar, zip and `cp -p` leave them."""

import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from pipeline.files import file_stamps
from tests.ingest.identity import Labeled, labeled

__all__ = ["labeled"]


@pytest.fixture
def swapped(labeled: Labeled) -> Labeled:
    """A run whose label files of ood are BMPs of one size and time."""
    for mask in (labeled.data / "ood/masks").rglob("*.png"):
        with Image.open(mask) as opened:
            opened.save(mask.with_suffix(".bmp"))
        mask.unlink()
        os.utime(mask.with_suffix(".bmp"), (1, 1))
    labeled.run()
    return labeled


def masks(run: Labeled) -> tuple[Path, Path]:
    folder = run.data / "ood/masks/0"
    return folder / "0.bmp", folder / "1.bmp"


def exchange_names(one: Path, other: Path) -> None:
    one.rename(one.with_name("aside"))
    other.rename(one)
    one.with_name("aside").rename(other)


def exchange_bytes(one: Path, other: Path) -> None:
    contents = one.read_bytes(), other.read_bytes()
    for path, content in zip((other, one), contents, strict=True):
        path.write_bytes(content)
        os.utime(path, (1, 1))


@pytest.mark.parametrize("exchange", [exchange_names, exchange_bytes])
def test_exchanged_label_files_are_read_again(
    swapped: Labeled, exchange: Callable[[Path, Path], None]
) -> None:
    before = swapped.images()
    one, other = masks(swapped)
    assert one.stat().st_size == other.stat().st_size
    assert one.read_bytes() != other.read_bytes()
    exchange(one, other)
    found = swapped.outcome("verify")
    assert found.returncode == 1
    assert f"ingest: shard 4: {one}: changed since `maskmill run ingest` read it" in found.stdout
    assert len([name for name in swapped.labeled_again() if name.endswith(".parquet")]) == 1
    after = swapped.images()
    pd.testing.assert_series_equal(after.image_id, before.image_id)
    changed = after.index[after.mask_id != before.mask_id]
    assert {Path(uri).name for uri in after.mask_uri[changed]} == {"0.bmp", "1.bmp"}
    assert swapped.run("verify").count("no damage\n")


def test_verify_reads_label_files_again_whose_stamp_shows_nothing(
    swapped: Labeled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(  # a damaged disk, or a file system without inodes and ctime
        file_stamps, "stamp", lambda path: "7:7" if os.path.exists(path) else None
    )
    swapped.run()
    exchange_names(*masks(swapped))
    assert "nothing to do" in swapped.run()
    found = swapped.outcome("verify")
    assert found.returncode == 1
    assert "1 damaged; repair it with: maskmill verify --rerun" in found.stdout
    assert swapped.run("verify --rerun").count("no damage\n")
    assert swapped.labeled_again()


def test_a_workspace_of_shorter_stamps_is_read_once_and_stays_labeled(
    labeled: Labeled, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = file_stamps.stamp

    def short(path: str) -> str | None:
        found = whole(path)
        return found and ":".join(found.split(":")[:2])

    with monkeypatch.context() as patch:  # as earlier versions wrote them
        patch.setattr(file_stamps, "stamp", short)
        labeled.run()
    reason = "images to be read once more: stamps hold inode and ctime now"
    assert f"ingest: 28 {reason}: 7 shards" in labeled.run("status")
    assert labeled.labeled_again() == set()
