"""Folder sources that are wrong, or hold what is no image."""

import os
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import DataError
from tests.ingest.sources.folders import Build, List, build, listed, touch

__all__ = ["build", "listed"]
ERRORS: dict[str, tuple[list[str], dict[str, str], str]] = {
    "missing folder": (
        [],
        {"images": "imags"},
        "config.yaml: web.images: {tmp}/imags: no such folder; "
        "create it, correct the path, or set `data` to the folder that it starts from",
    ),
    "a file for a folder": (
        ["images"],
        {},
        "config.yaml: web.images: {tmp}/images: a file, no folder; name the folder that holds the ",
    ),
    "empty folder": (
        ["images/notes.txt"],
        {},
        "config.yaml: web.images: {tmp}/images: the folder has no image file "
        "(1 file passed over: .txt 1); "
        "add images with one of the endings .apng .avif ",
    ),
    "missing mask folder": (
        ["images/a.png"],
        {"masks": "masks"},
        "config.yaml: web.masks: {tmp}/masks: no such folder; ",
    ),
    "empty mask folder": (
        ["images/a.png", "masks/a.npy"],
        {"masks": "masks"},
        "config.yaml: web.masks: {tmp}/masks: the folder has no image file "
        "(1 file passed over: .npy 1); "
        "add images with one of the endings .apng .avif ",
    ),
    "mask without image": (
        ["images/a.png", "masks/a.png", "masks/sub/b.png"],
        {"masks": "masks"},
        "config.yaml: web.masks: {tmp}/masks: 1 mask without an image, "
        "first: {tmp}/masks/sub/b.png; add the image to {tmp}/images, or remove the mask",
    ),
    "twins": (
        ["images/a.png", "images/a.jpg"],
        {"masks": "masks"},
        "config.yaml: web.images: {tmp}/images: a.jpg and a.png differ only in their ending; "
        "keep one of them, or rename it",
    ),
    "missing list": (
        ["images/a.png"],
        {"ids": "none.txt"},
        "config.yaml: web.ids: {tmp}/none.txt: cannot read the list: No such file or directory; "
        "write a text file with one image id a line, or leave out `ids`",
    ),
    "empty list": (
        ["images/a.png", "ids.txt"],
        {"ids": "ids.txt"},
        "config.yaml: web.ids: {tmp}/ids.txt: the list is empty; write one image id a line",
    ),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_name_the_file_and_the_key(kind: str, listed: List, tmp_path: Path) -> None:
    files, keys, text = ERRORS[kind]
    touch(tmp_path, *files)
    with pytest.raises(DataError) as error:
        listed(**keys)
    assert str(error.value).startswith(text.replace("{tmp}", str(tmp_path)))


@pytest.mark.parametrize("line", ["b", "a.b", "../images/a", "/etc/passwd", ".", "/", "images/a"])
def test_a_list_names_images_below_its_folder_only(line: str, listed: List, tmp_path: Path) -> None:
    touch(tmp_path / "images", "a.png")
    (tmp_path / "ids.txt").write_text(f"a\n{line}\n")
    expected = (
        f"config.yaml: web.ids: {tmp_path}/ids.txt: line 2: no image {line!r} in "
        f"{tmp_path}/images; correct the line or remove it"
    )
    with pytest.raises(DataError, match=f"^{re.escape(expected)}$"):
        listed(ids="ids.txt")


def test_a_list_that_is_no_text_is_named(listed: List, tmp_path: Path) -> None:
    touch(tmp_path / "images", "a.png")
    (tmp_path / "ids.txt").write_bytes(b"\x89PNG\xff")
    with pytest.raises(DataError, match="cannot read the list: it is not a UTF-8 text file; "):
        listed(ids="ids.txt")


def test_labeled_images_are_those_with_masks_and_a_remark_counts_the_others(
    build: Build, tmp_path: Path
) -> None:
    touch(tmp_path / "images", *(f"{number}.jpg" for number in range(40)), "logo.svg")
    touch(tmp_path / "masks", *(f"{number}.png" for number in range(8)))
    assert build(masks="masks").list().num_rows == 41
    source = build(masks="masks", only_masked=True)
    assert source.list()["mask"].null_count == 0
    assert source.list().num_rows == 8
    assert source.remarks[0] == (
        "33 of 41 images without a label file passed over; to use them, add a source "
        "{role: unlabeled, source: {name: folder, images: images}}"
    )
    (tmp_path / "ids.txt").write_text("1\n20\n")  # a list means what it says
    assert build(masks="masks", ids="ids.txt", only_masked=True).list()["mask"].null_count == 1


def test_label_files_below_the_images_are_no_images(listed: List, tmp_path: Path) -> None:
    touch(tmp_path / "images", "a.jpg", "masks/a.png", "masks2/a.png")
    assert listed(masks="images/masks") == [
        ("images/a.jpg", "images/masks/a.png"),
        ("images/masks2/a.png", None),
    ]


def test_an_image_in_a_format_that_is_not_decoded_may_lie_next_to_its_copy(
    listed: List, tmp_path: Path
) -> None:
    touch(tmp_path / "images", "a.heic", "a.jpg", "b.heic", "c.heic", "c.svg")
    touch(tmp_path / "masks", "a.png", "b.png")
    assert dict(listed(masks="masks")) == {
        "images/a.heic": None,
        "images/a.jpg": "masks/a.png",
        "images/b.heic": "masks/b.png",
        "images/c.heic": None,
        "images/c.svg": None,
    }


def test_names_without_a_known_ending_have_masks_and_ids_too(listed: List, tmp_path: Path) -> None:
    names = {"22.05": "22.05", "22.06": "22.06", "y.jpg?w=640": "y", "v1.0/x": "v1.0/x"}
    for name, stem in names.items():
        touch(tmp_path / "images", name)
        (tmp_path / "images" / name).write_bytes(b"\xff\xd8\xff\xe0")
        touch(tmp_path / "masks", f"{stem}.png")
    expected = [(f"images/{name}", f"masks/{stem}.png") for name, stem in names.items()]
    assert listed(masks="masks") == sorted(expected)
    for spelled in (names, names.values()):
        (tmp_path / "ids.txt").write_text("".join(f"{name}\n" for name in spelled))
        assert listed(masks="masks", ids="ids.txt") == expected


def test_a_line_that_may_be_two_images_is_refused(listed: List, tmp_path: Path) -> None:
    touch(tmp_path / "images", "a.jpg", "a.jpg.png")
    (tmp_path / "ids.txt").write_text("a\na.jpg.png\n")
    assert [image for image, _ in listed(ids="ids.txt")] == ["images/a.jpg", "images/a.jpg.png"]
    (tmp_path / "ids.txt").write_text("a.jpg\n")
    with pytest.raises(DataError, match=r"line 1: 'a.jpg' may be that image or 'a.jpg.png'; w"):
        listed(ids="ids.txt")


def test_what_cannot_be_looked_into_is_a_row_or_counted(build: Build, tmp_path: Path) -> None:
    touch(tmp_path / "images", "a.jpg", ".hidden/b.jpg", "secret")
    os.mkfifo(tmp_path / "images" / "pipe")
    (tmp_path / "images" / "nowhere").symlink_to("nothing")
    (tmp_path / "images" / "out").symlink_to("/etc/hostname")
    (tmp_path / "images" / "folder.zip").symlink_to("/etc")
    source = build()
    names = ["a.jpg", "folder.zip"]
    assert source.list()["image"].to_pylist() == [f"{tmp_path}/images/{name}" for name in names]
    assert source.remarks == ["5 files passed over: no ending 4, hidden 1"]


def test_folders_of_what_another_source_reads_say_so(build: Build, tmp_path: Path) -> None:
    def error(*names: str, **keys: Any) -> str:
        touch(tmp_path / "images", *names)
        with pytest.raises(DataError) as raised:
            build(**keys).list()
        return str(raised.value)

    table = pa.table({"image": [{"bytes": b"\xff\xd8\xff", "path": "0.jpg"}], "label": [3]})
    assert "(1 file passed over: .tar 1); use a source `webdataset`" in error("0.tar")
    assert "(2 files passed over: .tar 1, .zip 1); " in error("a.zip")
    (tmp_path / "images/0.tar").unlink()
    assert "; unpack the archives" in error()
    pq.write_table(table, tmp_path / "images/0.parquet")
    where = f"{tmp_path}/images/0.parquet"
    what = f"{where} holds images themselves, in its column `image`; write each image to "
    assert error() == (
        f"config.yaml: web.images: {tmp_path}/images: {what}"
        "a file of its own, and name the folder as a source `folder`"
    )
    assert what in error(images="images/0.parquet")
    assert "a file, no folder; name the folder that" in error(images="images/a.zip")
    touch(tmp_path, "0.tar", "list.txt")
    assert "a file, no folder; name its folder in a source `webd" in error(images="0.tar")
    assert "a file, no folder; if it names images, use a" in error(images="list.txt")
