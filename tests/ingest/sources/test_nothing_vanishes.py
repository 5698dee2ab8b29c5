"""Every file that a source sees is a row, belongs to a row, or is counted in a remark."""

import io
import os
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import DataError
from pipeline.files.config_paths import ConfigPaths
from stages.ingest.sources.base import Source
from stages.ingest.sources.folder import FolderSource
from stages.ingest.sources.webdataset import WebdatasetSource


def encoded(file_format: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, file_format)
    return buffer.getvalue()


PNG, JPEG = encoded("PNG"), encoded("JPEG")
CONTENTS = st.sampled_from([b"", b"text", PNG, JPEG, b"\0\0\0\x18ftypheic", b"<svg/>"])
STEMS = st.sampled_from(
    ["a", "b", "22.05", "s1.input", "._a", ".x", "img.0", "a.seg", "\x85", "é "]
)
ENDINGS = [".png", ".JPG", ".jpe", ".heic", ".svg", ".txt", ".json", ".dat", "", ".", ".05", ".tar"]
FOLDERS = ["", "sub/", "v1.2/", ".ipynb_checkpoints/", "__MACOSX/", "sub/deep/", "x.png.d/"]
NAMES = st.tuples(
    st.sampled_from(FOLDERS), STEMS, st.sampled_from([*ENDINGS, ".jpg?w=640", ".parquet", ".npy"])
).map("".join)
TREES = st.dictionaries(NAMES, CONTENTS, min_size=1, max_size=12)
FEW = settings(max_examples=60, deadline=None, derandomize=True)


def counted(remarks: list[str]) -> int:
    numbers = (re.match(r"(?:masks: )?(\d+) (?:files? passed|of \d+ images)", r) for r in remarks)
    return sum(int(found[1]) for found in numbers if found is not None)


def write(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def built(kind: type[Source], folder: Path, only_masked: bool = False, **keys: Any) -> Source:
    with ConfigPaths(folder / "config.yaml").being_read():
        config = kind.Config.model_validate(keys)
    more: dict[str, Any] = {"data": folder, "cache": folder / "cache"}
    return kind(config, where="config.yaml: web", only_masked=only_masked, **more)


@FEW
@given(TREES)
def test_in_folders(files: dict[str, bytes]) -> None:
    with TemporaryDirectory() as name:
        write(Path(name) / "images", files)
        source = built(FolderSource, Path(name), images="images")
        try:
            rows = source.list().num_rows
        except DataError as error:
            found = re.search(r"the folder has no image file \((\d+) files? passed", str(error))
            assert found is not None
            assert int(found[1]) == len(files)
            return
        assert rows + counted(source.remarks) == len(files)


UNLIKE_IMAGES = st.sampled_from(["._a.png", ".x/a.png", "a.npy", "v1.2/a", "a.txt"])


@FEW
@given(TREES, st.sets(st.integers(0, 12)), st.sets(UNLIKE_IMAGES), st.booleans())
def test_in_folders_with_masks(
    files: dict[str, bytes], masked: set[int], others: set[str], only_masked: bool
) -> None:
    with TemporaryDirectory() as name:
        images = {**files, "a/z.png": PNG}
        stems = [os.path.splitext(image)[0] for image in images]
        masks = {f"{stem}.tif": PNG for number, stem in enumerate(stems) if number in masked}
        masks |= {"a/z.bmp": PNG, **dict.fromkeys(others, b"text")}
        write(Path(name) / "images", {**images, **{f"masks/{k}": v for k, v in masks.items()}})
        keys = {"images": "images", "masks": "images/masks"}
        source = built(FolderSource, Path(name), only_masked, **keys)
        try:
            rows = source.list().to_pylist()
        except DataError as error:  # an image with two masks, a mask of no image
            found = re.search("without an image|differ only in their ending", str(error))
            assume(found is None)
            raise
        companions = sum(row["mask"] is not None for row in rows)
        assert len(rows) + companions + counted(source.remarks) == len(images) + len(masks)
        assert not only_masked or companions == len(rows)


MEMBERS = st.lists(st.tuples(NAMES, CONTENTS), min_size=1, max_size=12)
KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE])


@FEW
@given(st.lists(st.tuples(MEMBERS, KINDS), min_size=1, max_size=2), TREES)
def test_in_archives(archives: list[tuple[Any, bytes]], others: dict[str, bytes]) -> None:
    with TemporaryDirectory() as name:
        files = {k: v for k, v in others.items() if ".tar" not in k}
        write(Path(name) / "web", files)
        seen, companions = len(files), 0
        for number, (members, kind) in enumerate(archives):
            with tarfile.open(Path(name) / f"web/{number}.tar", "w") as archive:
                for index, (member, content) in enumerate(members):
                    info = tarfile.TarInfo(member)
                    info.type = kind if index == 0 else tarfile.REGTYPE
                    info.size = len(content) if info.isreg() else 0
                    archive.addfile(info, io.BytesIO(content))
                    seen += not info.isdir()
        source = built(WebdatasetSource, Path(name), shards="web")
        rows = [row["image"].partition("@")[0] for row in source.list().to_pylist()]
        images = [row for row in rows if ".tar#" in row]
        for number, (members, kind) in enumerate(archives):
            is_file = {member: True for member, _ in members}
            is_file[members[0][0]] = len(members) > 1 and members[0][0] in dict(members[1:])
            shown = [row.partition("#")[2] for row in images if f"/{number}.tar#" in row]
            stems = {os.path.splitext(image)[0] for image in shown}
            stems |= {re.sub(r"([^/.]*)\.[^/]*$", r"\1", image) for image in shown}
            for member in is_file:
                stem, ending = os.path.splitext(member)
                is_text = ending in (".txt", ".json") and not re.search(r"(^|/)(\.|__MAC)", member)
                is_folder = kind == tarfile.DIRTYPE and member == members[0][0]
                companions += is_text and stem in stems and (is_file[member] or not is_folder)
        assert len(images) == len({*images})
        assert len(images) + companions + counted(source.remarks) == seen


Rows = Callable[[], pd.DataFrame]
Maskmill = Callable[..., CompletedProcess[str]]
ODD = {
    "22.05.jpg": JPEG,
    "no-ending": PNG,
    "y.jpg?w=640": JPEG[:-2] + b"\xff\xd9",
    "phone.heic": b"\0\0\0\x18ftypheic" + bytes(99),
    "drawing.svg": b"<svg/>",
    "old.jpe": JPEG + b"\0",
    "map.pnm": encoded("PPM"),
    "notes.txt": b"",
    "table": b"text",
    "._22.05.jpg": JPEG,
    ".ipynb_checkpoints/22.05-checkpoint.jpg": JPEG,
}
REMARK = "ood: 4 files passed over: hidden 2, .txt 1, no ending 1"


@pytest.fixture
def odd(data: Path, tiny: dict[str, Any]) -> dict[str, Any]:
    """A folder of odd names as the only web images."""
    write(data / "odd", ODD)
    tiny["ingest"]["sources"]["ood"]["source"]["images"] = "odd"
    return tiny


def test_the_remark_is_in_ingest_status_and_data_check(
    odd: dict[str, Any], maskmill: Maskmill, write_config: Callable[..., Path], rows: Rows
) -> None:
    config = write_config(odd)
    done = maskmill("run", "ingest", "--config", config)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"ingest: {REMARK}\n") == 1
    table = rows()
    states = table[table.index.str.startswith("odd/")].set_index(
        table.index[table.index.str.startswith("odd/")].str.removeprefix("odd/")
    )
    assert set(states.index) == {*ODD} - {"notes.txt", "table", *[n for n in ODD if n[0] == "."]}
    rejected = states[states.status == "rejected"].error_message.to_dict()
    assert rejected == {
        "phone.heic": "a HEIC image, which is not decoded",
        "drawing.svg": "an SVG drawing, which is not decoded",
    }
    assert f"ingest: {REMARK}\n" in maskmill("status", "--config", config).stdout
    check = maskmill("data", "check", config)
    assert "ood (ood): 7 images; 4 files passed over: hidden 2, .txt 1" in check.stdout
    assert f"ingest: {REMARK}\n" in maskmill("run", "ingest", "--config", config).stderr
