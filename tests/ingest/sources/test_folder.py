"""Folder sources that are wrong, or hold what is no image."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import DataError
from tests.ingest.sources.folders import Build, List, build, listed, touch

__all__ = ["build", "listed"]


def test_image_files_of_all_subfolders_sorted_and_nothing_else(
    listed: List, tmp_path: Path
) -> None:
    touch(tmp_path / "images", "b.jpg", "a.PNG", "sub/c.webp", "notes.txt", "d.npy", "no-ending")
    (tmp_path / "images" / "folder.png").mkdir()
    assert listed() == [("images/a.PNG", None), ("images/b.jpg", None), ("images/sub/c.webp", None)]


def test_masks_have_the_subfolder_and_name_of_their_image_and_any_ending(
    listed: List, tmp_path: Path
) -> None:
    touch(tmp_path / "images", "a.jpg", "sub/a.jpg")
    touch(tmp_path / "masks", "sub/a.png", "a.tif")
    assert listed(masks="masks") == [
        ("images/a.jpg", "masks/a.tif"),
        ("images/sub/a.jpg", "masks/sub/a.png"),
    ]


def test_a_list_chooses_and_orders(listed: List, tmp_path: Path) -> None:
    touch(tmp_path / "images", "a.jpg", "b.png", "c.jpg", "v1.2/d.jpg", "e.jpg.png")
    touch(tmp_path / "masks", "a.png", "b.png", "c.png", "v1.2/d.png", "e.jpg.png")
    (tmp_path / "ids.txt").write_text("v1.2/d\n\n  b.png  \r\na\nb\ne.jpg\n")
    assert listed(ids="ids.txt", masks="masks") == [
        ("images/v1.2/d.jpg", "masks/v1.2/d.png"),
        ("images/b.png", "masks/b.png"),
        ("images/a.jpg", "masks/a.png"),
        ("images/e.jpg.png", "masks/e.jpg.png"),
    ]


def test_a_list_that_names_an_image_again_is_remarked(build: Build, tmp_path: Path) -> None:
    touch(tmp_path / "images", "a.jpg", "b.jpg")
    (tmp_path / "ids.txt").write_text("b\na\nb\nb.jpg\n")
    source = build(ids="ids.txt")
    assert source.list().num_rows == 2
    assert source.remarks == [f"2 lines of {tmp_path}/ids.txt repeat an image"]


def test_a_list_of_a_text_editor_that_marks_utf_8_is_read(listed: List, tmp_path: Path) -> None:
    touch(tmp_path / "images", "a.jpg")
    (tmp_path / "ids.txt").write_text("a\n", encoding="utf-8-sig")
    assert listed(ids="ids.txt") == [("images/a.jpg", None)]


def test_only_masks_of_the_chosen_images_are_needed(listed: List, tmp_path: Path) -> None:
    touch(tmp_path / "images", "a.jpg", "b.jpg")
    touch(tmp_path / "masks", "a.png")
    (tmp_path / "ids.txt").write_text("a")
    assert listed(ids="ids.txt", masks="masks") == [("images/a.jpg", "masks/a.png")]


def test_an_image_may_be_without_a_mask(listed: List, tmp_path: Path) -> None:
    touch(tmp_path / "images", "a.jpg", "b.jpg")
    touch(tmp_path / "masks", "b.png")
    assert listed(masks="masks") == [("images/a.jpg", None), ("images/b.jpg", "masks/b.png")]


def test_images_may_differ_only_in_their_ending_without_masks_and_ids(
    listed: List, tmp_path: Path
) -> None:
    touch(tmp_path / "images", "a.jpg", "a.png", "a.webp")
    assert sorted(listed()) == [(f"images/a.{ending}", None) for ending in ("jpg", "png", "webp")]


def test_links_are_followed_where_they_may_be(build: Build, tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "c.jpg", "sub/d.jpg", "mask.png")
    touch(tmp_path / "images", "a.jpg", "sub/b.jpg")
    for name, target in {
        "c.jpg": "../elsewhere/c.jpg",
        "folder": "../elsewhere/sub",
        "again": "folder",
        "up": "..",
        "inside": "sub",
        "inside.jpg": "a.jpg",
    }.items():
        (tmp_path / "images" / name).symlink_to(target)
    out = f"leads out of {tmp_path}/images; set `follow_links: true` where links may"
    inside = {"images/a.jpg": None, "images/inside.jpg": None, "images/sub/b.jpg": None}
    outside = dict.fromkeys(["images/again", "images/c.jpg", "images/folder", "images/up"], out)

    def problems(**keys: Any) -> dict[str, str | None]:
        images = build(**keys).list().to_pylist()
        return {one["image"].removeprefix(f"{tmp_path}/"): one["problem"] for one in images}

    assert problems() == inside | outside
    (tmp_path / "images/up").unlink()
    followed = problems(follow_links=True)
    assert set(followed.values()) == {None}
    assert followed.keys() - inside.keys() in (
        {"images/c.jpg", "images/folder/d.jpg"},
        {"images/c.jpg", "images/again/d.jpg"},
    )
    touch(tmp_path / "masks", "sub/b.png")
    (tmp_path / "masks/a.png").symlink_to("../elsewhere/mask.png")
    with pytest.raises(DataError, match=r"masks/a.png: leads out of .*/masks; set `follow_links"):
        build(masks="masks").list()
