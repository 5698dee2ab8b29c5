"""Lists that lead out of their folder or cannot be read."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from pipeline.errors import DataError
from stages.ingest.sources.base import Listed
from stages.ingest.sources.list import ListSource
from tests.ingest.sources.lists import List, build, data, listed, without_stamps

__all__ = ["build", "data", "listed"]


def test_a_text_file_names_an_image_a_line(
    build: Callable[..., ListSource], data: Path, tmp_path: Path
) -> None:
    text = f"\ufeffsub/b.jpg\r\n\n  a.jpg \n{data}/sub/c.jpg\na.jpg\ncaf\u00e9.jpg\n"
    (tmp_path / "list.txt").write_text(text, encoding="utf-8", newline="")
    source = build("list.txt")
    names = ("sub/b.jpg", "a.jpg", "sub/c.jpg", "café.jpg")
    assert without_stamps(source) == [Listed(f"{data}/{name}") for name in names]
    assert source.remarks == [f"1 lines of {tmp_path}/list.txt repeat an image"]


def test_names_that_are_not_utf_8_are_listed_with_a_problem(listed: List, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"caf\xe9.jpg\n")
    [one] = listed("list.txt")
    assert one.image.endswith(r"caf\udce9.jpg")
    assert one.problem == "its name is not UTF-8 text"


def test_an_image_has_one_address_in_any_spelling(
    build: Callable[..., ListSource], data: Path, tmp_path: Path
) -> None:
    spelled = ["./a.jpg", ".//a.jpg", "../data/a.jpg", "sub/./../a.jpg", f"/{data}/a.jpg", "a.jpg"]
    spelled += ["0.tar#./x/../a.jpg@512+7", "./sub/../0.tar#./x/../a.jpg@512+7"]
    (tmp_path / "list.txt").write_text("\n".join(spelled))
    names = ("a.jpg", "0.tar#./x/../a.jpg@512+7")
    assert without_stamps(build("list.txt")) == [Listed(f"{data}/{name}") for name in names]


def test_dots_after_a_link_or_a_missing_folder_stay(
    listed: List, data: Path, tmp_path: Path
) -> None:
    (data / "far/away").mkdir(parents=True)
    (data / "link").symlink_to("far/away")
    lines = ["link/../a.jpg", "none/../a.jpg", "a.jpg/../a.jpg", "far/away/../../link/./b.jpg"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    kept = [*lines[:3], "link/b.jpg"]  # of the first the file is far/a.jpg, the others are none
    assert listed("list.txt") == [Listed(f"{data}/{line}") for line in kept]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_brings_captions_and_urls(
    kind: str, listed: List, data: Path, tmp_path: Path
) -> None:
    table = pd.DataFrame(
        {
            "number": [1, 2],
            "path": ["a.jpg", "sub/b.jpg"],
            "url": ["http://x/1", "http://x/2"],
            "caption": ["a cat, asleep", 'a "dog"'],
        }
    )
    getattr(table, f"to_{kind}")(tmp_path / f"list.{kind}", index=False)
    assert listed(f"list.{kind}") == [
        Listed(f"{data}/a.jpg", None, "a cat, asleep", "http://x/1"),
        Listed(f"{data}/sub/b.jpg", None, 'a "dog"', "http://x/2"),
    ]


def test_rows_of_an_images_manifest_are_a_list(listed: List, data: Path, tmp_path: Path) -> None:
    uris = [f"{data}/a.jpg", f"{data}/0.tar#0.jpg@512+9"]
    masks = [f"{data}/m.png", None]
    rows = pd.DataFrame({"uri": uris, "mask_uri": masks, "caption": ["a", None], "row": [3, 4]})
    rows.to_parquet(tmp_path / "list.parquet")
    assert listed("list.parquet") == [Listed(uris[0], masks[0], "a"), Listed(uris[1])]


def test_a_published_split_names_image_and_label_file(
    listed: List, data: Path, tmp_path: Path
) -> None:
    pairs = [("a.jpg", "m/a.png"), ("sub/b.jpg", "m/my b.PNG"), ("my c.JPG", "m/c.png")]
    (tmp_path / "list.txt").write_text("\n".join(f"{image} {mask}" for image, mask in pairs))
    assert listed("list.txt") == [Listed(f"{data}/{i}", f"{data}/{m}") for i, m in pairs]
    assert listed("list.txt", masks=False) == [Listed(f"{data}/{image}") for image, _ in pairs]


@pytest.mark.parametrize("between", ["\t", ",", ", ", " , ", ";", "  ", " \t "])
def test_image_and_label_file_may_be_separated_otherwise(
    between: str, listed: List, data: Path, tmp_path: Path
) -> None:
    pairs = [("a.jpg", "m/a.png"), ("my, c.JPG", "m/my c.png")]
    (tmp_path / "list.txt").write_text("\n".join(between.join(pair) for pair in pairs))
    assert listed("list.txt") == [Listed(f"{data}/{i}", f"{data}/{m}") for i, m in pairs]


@pytest.mark.parametrize(
    "break_", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\r", "\xa0"]
)
def test_only_a_line_feed_ends_a_line(
    break_: str, listed: List, data: Path, tmp_path: Path
) -> None:
    name = f"a{break_}b.jpg"
    (tmp_path / "list.txt").write_bytes(f"{name}\r\n{break_}\n".encode())
    expected = [name] if break_ == "\r" else [name, break_]
    assert [one.image for one in listed("list.txt")] == [f"{data}/{name}" for name in expected]


@pytest.mark.parametrize("name", ["a b.jpg", "a.jpg b", "a.jpg b.jpg c.png", "a.jpg  b"])
def test_other_spaces_are_part_of_a_name(
    name: str, listed: List, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "list.txt").write_text(f"{name}\n")
    assert listed("list.txt") == [Listed(f"{data}/{name}")]


def test_a_label_file_of_a_line_must_not_lead_out(listed: List, data: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.jpg ../m.png\n")
    with pytest.raises(DataError, match=r"image 1: its mask .*/m.png leads out of "):
        listed("list.txt")
    assert listed("list.txt", masks=False) == [Listed(f"{data}/a.jpg")]


def test_paths_start_at_the_root_where_one_is_named(
    listed: List, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "list.txt").write_text("b.jpg\n../a.jpg\n")
    first, second = listed("list.txt", root="sub")
    assert first == Listed(f"{data}/sub/b.jpg")
    assert second.problem == f"leads out of {data}/sub"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_csv_may_be_separated_otherwise(
    delimiter: str, listed: List, data: Path, tmp_path: Path
) -> None:
    rows = [["uri", "caption"], ["a.jpg", "one"], ["sub/b.jpg", "two"]]
    (tmp_path / "list.csv").write_text("\n".join(delimiter.join(row) for row in rows) + "\n")
    found = [(each.image, each.caption) for each in listed("list.csv")]
    assert found == [(f"{data}/a.jpg", "one"), (f"{data}/sub/b.jpg", "two")]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_columns_that_may_be_label_files_are_told(
    kind: str, build: Callable[..., ListSource], tmp_path: Path
) -> None:
    table = pd.DataFrame({"uri": ["a.jpg"], "Mask_path": ["a.png"], "length": ["3"]})
    getattr(table, f"to_{kind}")(tmp_path / f"list.{kind}", index=False)
    source = build(f"list.{kind}")
    source.list()
    assert source.remarks == [
        "not read: `Mask_path`; label files are read from a column `mask_uri`"
    ]


def test_further_columns_of_a_line_are_told(
    build: Callable[..., ListSource], data: Path, tmp_path: Path
) -> None:
    (data / "a.jpg copy").write_bytes(b"")
    lines = ["a.jpg a.png 0.5", "a.jpg,cat", "a.jpg", "a.jpg copy"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    source = build("list.txt")
    source.list()
    assert source.remarks == [
        "2 lines name no file and look like several columns; a line holds an image, or an image "
        f"and its label file, no more; first: {data}/a.jpg a.png 0.5"
    ]
