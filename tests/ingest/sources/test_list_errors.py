"""Lists that lead out of their folder or cannot be read."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import DataError
from stages.ingest.sources.base import Listed
from tests.ingest.sources.lists import List, build, data, listed

__all__ = ["build", "data", "listed"]


OUTSIDE = ["../secret.jpg", "sub/../../secret.jpg", "/etc/passwd", "{tmp}/secret.jpg", "..", "/"]
OUTSIDE += ["../data2/a.jpg", "../x.tar#0.jpg@512+9", "sub/../.."]


@pytest.mark.parametrize("line", OUTSIDE)
@pytest.mark.parametrize("follow_links", [False, True])
def test_a_line_that_leads_out_is_not_read(
    line: str, follow_links: bool, listed: List, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "list.txt").write_text(f"a.jpg\n{line.replace('{tmp}', str(tmp_path))}\n")
    good, bad = listed("list.txt", follow_links=follow_links)
    assert good.problem is None
    assert bad.problem == f"leads out of {data}"


def test_links_lead_out_only_where_they_may(listed: List, data: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/c.jpg").touch()
    (data / "file.jpg").symlink_to(tmp_path / "elsewhere/c.jpg")
    (data / "folder").symlink_to(tmp_path / "elsewhere")
    (data / "inside.jpg").symlink_to("sub/b.jpg")
    (tmp_path / "list.txt").write_text("file.jpg\nfolder/c.jpg\ninside.jpg\n")
    problem = f"leads out of {data}; set `follow_links: true` where links may"
    assert [one.problem for one in listed("list.txt")] == [problem, problem, None]
    assert [one.problem for one in listed("list.txt", follow_links=True)] == [None] * 3


def test_a_root_that_is_a_link_itself_is_fine(listed: List, data: Path, tmp_path: Path) -> None:
    data.rename(tmp_path / "elsewhere")
    data.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "list.txt").write_text(f"a.jpg\n{tmp_path}/elsewhere/sub/b.jpg\n")
    assert [one.problem for one in listed("list.txt")] == [None, None]


ERRORS: dict[str, tuple[str, bytes | None, str]] = {
    "missing": ("list.txt", None, "cannot read the list: No such file or directory; write a text"),
    "missing table": ("list.csv", None, "cannot read the list: "),
    "empty": ("list.txt", b"\n \n", "the list is empty; write one image path a line"),
    "binary": ("list.txt", b"\x89PNG\0\0", "cannot read the list: it is not a text file; "),
    "web addresses": (
        "list.txt",
        b"a.jpg\nhttps://x/y.jpg\n",
        "image 2: 'https://x/y.jpg' is not the path of a file; "
        "download the images, e.g. with img2dataset, and use a source `webdataset`",
    ),
    "no Parquet": ("list.parquet", b"uri\na.jpg\n", "cannot read the table: "),
    "no column": (
        "list.csv",
        b"image,caption\na.jpg,x\n",
        "the table has no column `uri` or `path`; "
        "rename the column that holds the paths; its columns are: image, caption",
    ),
    "ragged": ("list.csv", b"uri,url\na.jpg\n", "cannot read the table: "),
    "JSON": ("list.jsonl", b'{"file_name": "a.jpg"}', "the list is JSON; write a text file with"),
    "a column that is nearly right": (
        "list.csv",
        b"uri, mask_uri\na.jpg, a.png\n",
        "the table has a column ' mask_uri'; rename it to `mask_uri`, or drop it",
    ),
    "mask outside": (
        "list.csv",
        b"uri,mask_uri\na.jpg,../m.png\n",
        "image 1: its mask {tmp}/m.png leads out of {data}; correct the line or remove it",
    ),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_of_lists_name_the_file(kind: str, listed: List, data: Path, tmp_path: Path) -> None:
    file, content, text = ERRORS[kind]
    if content is not None:
        (tmp_path / file).write_bytes(content)
    text = text.replace("{data}", str(data)).replace("{tmp}", str(tmp_path))
    expected = f"config.yaml: web.file: {tmp_path}/{file}: {text}"
    with pytest.raises(DataError, match=f"^{re.escape(expected)}") as error:
        listed(file)
    assert "\n" not in str(error.value)


def test_columns_that_hold_no_text_are_named(listed: List, tmp_path: Path) -> None:
    pd.DataFrame({"uri": [["a.jpg"]]}).to_parquet(tmp_path / "list.parquet")
    with pytest.raises(DataError, match=r"list.parquet: cannot read the table: .* columns of text"):
        listed("list.parquet")
    with pytest.raises(DataError, match=r"web.root: .*/none: no such folder; create it, or set"):
        listed("list.parquet", root="none")


NOT_UTF_8 = pa.StringArray.from_buffers(
    1, pa.py_buffer(bytes(4) + b"\1\0\0\0"), pa.py_buffer(b"\xff")
)
NO_TEXT = "holds text that is not UTF-8"
TABLES: dict[str, tuple[bytes | pa.Table, str]] = {
    "twice.csv": (b"uri,caption,caption\na.jpg,a,b\n", "it has the column `caption` twice"),
    "twice.parquet": (
        pa.table([pa.array(["a.jpg"])] * 2, names=["uri", "uri"]),
        "it has the column `uri` twice",
    ),
    "bytes.csv": (b"uri,caption\na.jpg,\xff\n", "In CSV column #1: "),
    "header.csv": (b"uri,\xff\na.jpg,x\n", "it is not UTF-8 text"),
    "caption.parquet": (
        pa.table({"uri": ["a.jpg"], "caption": NOT_UTF_8}),
        f"its column `caption` {NO_TEXT}",
    ),
    "uri.parquet": (pa.table({"uri": NOT_UTF_8}), f"its column `uri` {NO_TEXT}"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_cannot_be_read_is_one_line(name: str, listed: List, tmp_path: Path) -> None:
    content, what = TABLES[name]
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        pq.write_table(content, tmp_path / name)
    expected = f"config.yaml: web.file: {tmp_path}/{name}: cannot read the table: {what}"
    with pytest.raises(DataError, match=f"^{re.escape(expected)}.*; save it again") as error:
        listed(name)
    assert "\n" not in str(error.value)


def test_cells_may_be_empty_or_hold_line_breaks(listed: List, data: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(
        'uri,mask_uri,caption\na.jpg,,"two\nlines"\n"b\nc.jpg",m.png,\n'
    )
    assert listed("list.csv") == [
        Listed(f"{data}/a.jpg", None, "two\nlines"),
        Listed(f"{data}/b\nc.jpg", f"{data}/m.png", ""),
    ]


@pytest.mark.parametrize(
    ("column", "values"),
    [("image", [{"bytes": b"\xff\xd8\xff", "path": "0.jpg"}]), ("jpg", [b"\xff\xd8\xff"])],
)
def test_a_table_of_images_themselves_says_what_to_do(
    column: str, values: list[Any], listed: List, tmp_path: Path
) -> None:
    table = pa.table({column: values, "path": ["0.jpg"]})
    pq.write_table(table.drop(["path"]), tmp_path / "list.parquet")
    pq.write_table(table, tmp_path / "named.parquet")
    for name in ("list.parquet", "named.parquet"):
        what = f"{tmp_path}/{name} holds images themselves, in its column `{column}`; write "
        with pytest.raises(DataError, match=re.escape(what)):
            listed(name)
