"""Members of archives: every one is a row, belongs to one, or is counted."""

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

from pipeline.images import images
from tests.ingest.sources.archives import Add, Build, Jpeg, WriteShard, build, list_images, web

__all__ = ["build", "web"]


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
