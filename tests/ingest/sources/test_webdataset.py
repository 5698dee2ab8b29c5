import os
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import DataError
from pipeline.images import images
from stages.ingest.sources.base import Listed
from stages.ingest.sources.webdataset import WebdatasetConfig, WebdatasetSource

WriteShard = Callable[[Path, int, list[str | None]], Path]
Build = Callable[..., WebdatasetSource]
Add = Callable[..., None]
Jpeg = Callable[[str], bytes]


@pytest.fixture
def web(tmp_path: Path) -> Path:
    folder = tmp_path / "data/web"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def build(web: Path, tmp_path: Path) -> Build:
    def build(**keys: Any) -> WebdatasetSource:
        config = WebdatasetConfig.model_validate({"shards": "web", **keys})
        where, cache = "config.yaml: web", tmp_path / "cache"
        return WebdatasetSource(
            config, data=web.parent, config_folder=tmp_path, cache=cache, where=where
        )

    return build


def list_images(source: WebdatasetSource) -> list[Listed]:
    return [Listed(**row) for row in source.list().to_pylist()]


def shown(source: WebdatasetSource, web: Path) -> dict[str, str | None]:
    """Problems by address, without folder and position."""
    listed = {one.image: one.problem for one in list_images(source)}
    return {re.sub(r"@\d+\+\d+$", "", k.removeprefix(f"{web}/")): v for k, v in listed.items()}


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


def test_a_run_reads_shards_and_a_new_download_moves_no_row(
    maskmill: Callable[..., CompletedProcess[str]],
    tiny: dict[str, Any],
    write_config: Callable[..., Path],
    rows: Callable[[], pd.DataFrame],
    write_shard: WriteShard,
    data: Path,
) -> None:
    write_shard(data / "web", 0, [None, "timed out", None])
    tiny["ingest"]["sources"]["ood"]["source"] = {"name": "webdataset", "shards": "web"}
    config = write_config(tiny)
    done = maskmill("run", "ingest", "--config", config)
    assert done.returncode == 0, done.stderr
    remark = "img2dataset could not download 1 more images; most frequent reason (1): timed out"
    assert f"ood: {remark}" in done.stderr
    before = rows().reset_index(drop=True)
    ood = before[before.role == "ood"]
    assert ood.caption.tolist() == ["image 000000000", "image 000000002"]
    assert ood.url.tolist() == ["http://x/000000000", "http://x/000000002"]
    assert (set(ood.status), set(ood.width), set(ood.format)) == ({"ok"}, {12}, {"JPEG"})
    show = maskmill("show", ood.image_id.iloc[1], "--config", config)
    assert show.returncode == 0, show.stderr

    write_shard(data / "web", 0, [None, None, None])
    assert maskmill("run", "ingest", "--config", config).returncode == 0
    after = rows().reset_index(drop=True).set_index("row").sort_index()
    assert after.status.tolist() == ["ok"] * len(before) + ["ok"]
    assert after.image_id[: len(before)].tolist() == before.sort_values("row").image_id.tolist()
    assert after.url.iloc[-1] == "http://x/000000001"
    assert "nothing to do" in maskmill("run", "ingest", "--config", config).stderr


NOT_UTF_8 = pa.StringArray.from_buffers(
    1, pa.py_buffer(bytes(4) + b"\1\0\0\0"), pa.py_buffer(b"\xff")
)


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        (
            {"key": pa.array(["a"]), "caption": NOT_UTF_8},
            "its column `caption` holds text that is not",
        ),
        ({"key": NOT_UTF_8}, "its column `key` holds text that is not UTF-8"),
        ({"key": pa.array(["a"]), "key ": pa.array(["b"])}, "it has the column `key` twice"),
    ],
)
def test_a_sidecar_that_cannot_be_read_is_a_remark(
    columns: dict[str, Any], what: str, build: Build, web: Path, write_shard: WriteShard
) -> None:
    sidecar = write_shard(web, 0, [None]).with_suffix(".parquet")
    names = [name.strip() for name in columns]
    pq.write_table(pa.table(list(columns.values()), names=names), sidecar)
    source = build()
    [image] = list_images(source)
    assert image.caption == "image 000000000"
    assert len(source.remarks) == 1
    assert source.remarks[0].startswith(f"{sidecar} cannot be read: {what}")


def test_the_last_ending_decides_and_captions_have_the_name_or_the_key(
    build: Build, web: Path, add: Add, jpeg: Jpeg
) -> None:
    texts = {"22.05.txt": "of 22.05", "22.txt": "of 22", "s1.json": '{"caption": "of s1"}'}
    images = ["22.05.png", "22.06.png", "s1.input.jpg", "img.0.jpg", "img.1.jpg", "v1.2/x.jpg"]
    with tarfile.open(web / "0.tar", "w") as archive:
        for name in [*images, "no-ending", "y.jpg?w=640", "x.heic"]:
            add(archive, name, jpeg("red"))
        for name, text in texts.items():
            add(archive, name, text.encode())
        for name in ("__key__", "s1.cls", "other.txt", "._x.jpg", "__MACOSX/x.jpg"):
            add(archive, name, b"text")
    source = build()
    listed = list_images(source)
    names = [re.sub(r".*#(.*)@.*", r"\1", one.image) for one in listed]
    assert names == [*images, "no-ending", "y.jpg?w=640", "x.heic"]
    captions = ["of 22.05", "of 22", "of s1", *[None] * 6]
    assert [one.caption for one in listed] == captions
    assert source.remarks == ["5 files passed over: hidden 2, .cls 1, .txt 1, no ending 1"]
    again = build()
    assert list_images(again) == listed  # from the cache
    assert again.remarks == source.remarks


def test_images_that_only_a_sidecar_has_are_counted(
    build: Build, web: Path, write_shard: WriteShard
) -> None:
    sidecar = write_shard(web, 0, [None, None, "timed out", None]).with_suffix(".parquet")
    content = sidecar.read_bytes()
    write_shard(web, 0, [None])
    sidecar.write_bytes(content)
    source = build()
    assert len(list_images(source)) == 1
    assert source.remarks == [
        "img2dataset could not download 1 more images; most frequent reason (1): timed out",
        "2 images that sidecars list as downloaded are not in their archives",
    ]


def test_of_a_repeated_name_the_last_file_counts(
    build: Build, web: Path, add: Add, jpeg: Jpeg
) -> None:
    with tarfile.open(web / "0.tar", "w") as archive:
        for color in ("red", "green", "blue"):
            add(archive, "a.jpg", jpeg(color))
    source = build()
    [one] = list_images(source)
    assert images.read_bytes(one.image) == jpeg("blue")
    assert source.remarks == ["2 files passed over: repeated name 2"]


def test_what_lies_next_to_archives_is_theirs_or_counted(
    build: Build, web: Path, write_shard: WriteShard
) -> None:
    write_shard(web, 0, [None])
    for name in ("00000_stats.json", "00001_stats.json", "x.jpg", "00002.TAR", "3.tgz", "._4.tar"):
        (web / name).touch()
    source = build()
    problems = [one.problem for one in list_images(source) if one.problem]
    assert problems == [
        "the ending of its name is in capitals; rename it to .tar",
        "a compressed archive; decompress it: its images are read at random",
    ]
    assert source.remarks == ["3 files passed over: .jpg 1, .json 1, hidden 1"]


def test_images_after_the_end_of_an_archive_are_not_lost_in_silence(
    build: Build, web: Path, write_shard: WriteShard
) -> None:
    first = write_shard(web, 0, [None, None]).read_bytes()
    second = write_shard(web, 1, [None]).read_bytes()
    (web / "00000.tar").write_bytes(first + second)  # as `cat` joins them
    (web / "00001.tar").write_bytes(
        second.rstrip(b"\0").ljust(-(-len(second.rstrip(b"\0")) // 512) * 512, b"\0")
    )
    problems = [one.problem for one in list_images(build()) if one.problem]
    assert problems == [
        f"more data after its end mark, at byte {len(first):,}: unpack and pack again; "
        "images before it are read",
        "the end mark is missing: it may be cut, and files missing; images before it are read",
    ]
