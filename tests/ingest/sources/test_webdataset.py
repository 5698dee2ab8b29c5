"""Members of archives: every one is a row, belongs to one, or is counted."""

import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import DataError
from pipeline.images import images
from tests.ingest.sources.archives import (
    Add,
    Build,
    Jpeg,
    WriteShard,
    build,
    list_images,
    shown,
    web,
)

__all__ = ["build", "web"]


def test_images_come_with_captions_and_urls_and_are_read_in_place(
    build: Build, web: Path, write_shard: WriteShard, jpeg: Jpeg
) -> None:
    write_shard(web, 1, [None])
    write_shard(web, 0, [None, "HTTP Error 404: Not Found", None])
    write_shard(web / "more", 2, ["timed out", "HTTP Error 404: Not Found"])
    source = build()
    listed = list_images(source)
    assert [one.url for one in listed] == [
        "http://x/000000000",
        "http://x/000000002",
        "http://x/000010000",
        None,
    ]
    assert listed[1].caption == "image 000000002"
    assert listed[1].image.startswith(f"{web}/00000.tar#000000002.jpg@")
    assert images.read_bytes(listed[1].image) == jpeg("#000280")
    assert (listed[3].image, listed[3].problem) == (
        f"{web}/more/00002.tar",
        "no image in the archive",
    )
    assert source.remarks == [
        "img2dataset could not download 3 more images; "
        "most frequent reason (2): HTTP Error 404: Not Found"
    ]


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"PAR1")])
def test_without_a_sidecar_the_metadata_files_are_read(
    damage: Callable[[Path], object], build: Build, web: Path, write_shard: WriteShard
) -> None:
    sidecar = write_shard(web, 0, [None, "timed out", None]).with_suffix(".parquet")
    whole = list_images(build())
    damage(sidecar)
    source = build()
    assert list_images(source) == whole
    remarks = [f"{sidecar} cannot be read: "] if sidecar.exists() else []
    assert [remark[: len(remarks[0])] for remark in source.remarks] == remarks


def test_hostile_metadata_is_text_or_nothing(build: Build, web: Path, add: Add, jpeg: Jpeg) -> None:
    texts = [b"[1, 2]", b'{"url": 7, "caption": ["x"]}', b"[" * 100_000, b"{", b"\xff", b"null"]
    with tarfile.open(web / "0.tar", "w") as archive:
        for index, text in enumerate(texts):
            add(archive, f"{index}.jpg", jpeg("red"))
            add(archive, f"{index}.json", text)
        add(archive, "7.jpg", jpeg("red"))
        add(archive, "7.txt", b"caf\xe9")
    listed = list_images(build())
    assert [(one.caption, one.url) for one in listed] == [(None, None)] * 6 + [("caf\ufffd", None)]


def test_members_that_are_no_plain_files_of_the_archive_are_not_read(
    build: Build, web: Path, add: Add, jpeg: Jpeg
) -> None:
    with tarfile.open(web / "0.tar", "w") as archive:
        add(archive, "../../x.jpg", jpeg("red"))
        add(archive, "/etc/x.png", jpeg("red"))
        add(archive, "soft.jpg", b"", tarfile.SYMTYPE)
        add(archive, "hard.jpg", b"", tarfile.LNKTYPE)
        add(archive, "pipe.jpg", b"", tarfile.FIFOTYPE)
        add(archive, "sub/good.JPG", jpeg("red"))
        add(archive, "sub/good.seg.png", jpeg("red"))  # labels of the image of the sample
    outside = "its name leads out of the archive"
    source = build()
    assert shown(source, web) == {
        "0.tar#../../x.jpg": outside,
        "0.tar#/etc/x.png": outside,
        "0.tar#soft.jpg": "a link, no file",
        "0.tar#hard.jpg": "a link, no file",
        "0.tar#pipe.jpg": "a pipe, no file",
        "0.tar#sub/good.JPG": None,
    }
    assert source.remarks == ["1 file passed over: .seg.png 1"]


def test_damaged_archives_are_rows_and_their_good_images_are_read(
    build: Build, web: Path, write_shard: WriteShard, tmp_path: Path
) -> None:
    content = write_shard(web, 0, [None, None]).read_bytes()
    second = content.index(b"000000001.jpg\0")
    (web / "00000.tar").write_bytes(content[: second + 512 + 100])
    (web / "00001.tar").write_bytes(content[:second] + b"x" * 1024)
    (web / "00002.tar").write_bytes(b"<html>" * 100)
    (web / "00003.tar").touch()
    (web / "00004.tar.gz").touch()
    (web / "00005.tar").mkdir()
    os.mkfifo(web / "00006.tar")
    (web / "00007.tar").symlink_to(tmp_path / "none.tar")
    (web / "00008.tar").symlink_to("00000.tar")
    listed = shown(build(), web)
    assert listed.pop("00001.tar").startswith("no tar header at byte ")  # type: ignore[union-attr]
    assert listed == {
        "00000.tar#000000000.jpg": None,
        "00000.tar#000000001.jpg": "the archive ends in the middle of it",
        "00001.tar#000000000.jpg": None,
        "00002.tar": "no tar header at byte 0",
        "00003.tar": "no image in the archive",
        "00004.tar.gz": "a compressed archive; decompress it: its images are read at random",
        "00006.tar": "not a plain file",
        "00007.tar": f"leads out of {web}; set `follow_links: true` where links may",
        "00008.tar#000000000.jpg": None,
        "00008.tar#000000001.jpg": "the archive ends in the middle of it",
    }


def test_an_archive_is_listed_once_and_again_when_it_changes(
    build: Build, web: Path, write_shard: WriteShard, tmp_path: Path
) -> None:
    path = write_shard(web, 0, [None, "timed out"])
    first = build()
    listed = list_images(first)
    [kept] = (tmp_path / "cache").iterdir()
    before = kept.stat().st_mtime_ns
    again = build()
    assert list_images(again) == listed
    assert again.remarks == first.remarks
    assert kept.stat().st_mtime_ns == before
    write_shard(web, 0, [None, None])
    assert len(list_images(build())) == 2
    kept.write_bytes(b"damaged")
    path.with_suffix(".parquet").unlink()
    assert len(list_images(build())) == 2


def test_it_lists_without_a_writable_cache(
    build: Build, web: Path, write_shard: WriteShard, tmp_path: Path
) -> None:
    write_shard(web, 0, [None])
    (tmp_path / "cache").write_text("a file, so that no folder can be made")
    assert len(list_images(build())) == 1


def test_mistakes_are_named(build: Build, web: Path) -> None:
    (web / "00000.parquet").touch()
    with pytest.raises(
        DataError,
        match=r"web\.shards: .*/web: the folder has no \.tar file \(1 file passed over: "
        r"\.parquet 1\); add the \.tar files of",
    ):
        build().list()
    with pytest.raises(DataError, match=r"web\.shards: .*/none: no such folder; create it, "):
        build(shards="none").list()
