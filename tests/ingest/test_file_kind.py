"""Which files are images: by name, and where the name says nothing by the first bytes."""

import io
import os

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from PIL import Image

from pipeline.images.file_kinds import START, starts_as_image
from stages.ingest.file_kind import (
    FileKind,
    PassedOver,
    ending_of,
    is_hidden,
    kind,
    kind_by_name,
    without_ending,
)

FORMATS = ["AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP"]
UNDECODED = [
    b"\0\0\0\x18ftypheic",
    b"\0\0\0\x18ftypmif1",
    b"\xff\x0a\xff\xff",
    b"\0\0\0\x0cJXL \r\n\x87\n",
    b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- made by hand -->\n<!DOCTYPE svg>\n<svg>",
]
NO_IMAGES = [
    *(
        b"",
        b"hello",
        b"BM is a text",
        b"P5 is one too",
        b"<html><svg>",
        b"<?xml version='1.0'?><a>",
    ),
    *(b"RIFF\0\0\0\0WAVEfmt ", b"\0\0\0\x18ftypisom", b"PK\x03\x04", b"\x1f\x8b\x08", b"%PDF-1.7"),
]


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("mode", ["RGB", "L", "1"])
def test_every_format_that_is_decoded_is_known_by_its_first_bytes(
    file_format: str, mode: str
) -> None:
    if file_format in ("AVIF", "JPEG2000", "JPEG", "MPO", "WEBP") and mode == "1":
        mode = "L"
    buffer = io.BytesIO()
    Image.new(mode, (9, 7), 1).save(buffer, file_format)
    assert starts_as_image(buffer.getvalue()[:START])


@pytest.mark.parametrize("start", UNDECODED)
def test_formats_that_are_not_decoded_are_images_too(start: bytes) -> None:
    assert starts_as_image(start)


@pytest.mark.parametrize("start", NO_IMAGES)
def test_other_files_are_no_images(start: bytes) -> None:
    assert not starts_as_image(start)


HIDDEN = ["._x.png", ".DS_Store", "a/.ipynb_checkpoints/x.png", ".git/x", "__MACOSX/a/._x.png"]
HIDDEN += ["a/__MACOSX/x.png", "./a/._x.png", "../.x.png"]
SHOWN = ["x.png", "./x.png", "../x.png", "a.b/x.png", "a/./x.png", "__MACOSX.png", "x..png", "a/.."]


def test_hidden_names_are_those_with_a_hidden_step() -> None:
    assert [name for name in HIDDEN + SHOWN if is_hidden(name)] == HIDDEN


def test_names_decide_where_they_can() -> None:
    kinds = {
        FileKind.IMAGE: ["x.JPG", "22.05.png", "v1.2/x.jpe", "x.heic"],
        FileKind.OTHER: ["x.txt", "a.png/x.json"],
        FileKind.UNKNOWN: ["x", "a.png/x", "y.jpg?w=640", "22.05", "x.", "x.dat"],
        FileKind.HIDDEN: HIDDEN,
    }
    for expected, names in kinds.items():
        assert {kind_by_name(name) for name in names} == {expected}
    assert kind("x", b"\xff\xd8\xff\xe0") is FileKind.IMAGE
    assert kind("x", b"text") is FileKind.OTHER


@given(st.text(alphabet="a./X", min_size=1, max_size=8).filter(lambda name: not is_hidden(name)))
@example("a/x")
def test_an_ending_is_what_python_calls_one(name: str) -> None:
    assume(os.path.basename(name) != "..")
    assert ending_of(name) == os.path.splitext(name)[1].lower()


def test_an_ending_begins_with_a_letter() -> None:
    names = ["22.05", "22.05.png", "a.d/x", "y.jpg?w=640", "x.DAT", "sub/"]
    assert [without_ending(name) for name in names] == ["22.05", "22.05", "a.d/x", "y", "x", "sub/"]


def test_a_remark_counts_every_file_and_is_one_short_line() -> None:
    passed = PassedOver()
    assert passed.remark() is None
    passed.add("x.heif\nnext", FileKind.OTHER)
    assert passed.remark() == "1 file passed over: other endings 1"
    for number in range(30):
        passed.add(f"x.e{number}", FileKind.OTHER)
    for name in ("a", "b", "v1.0/c"):
        passed.add(name, FileKind.OTHER)
    passed.add("._a", FileKind.HIDDEN)
    assert passed.remark() == (
        "35 files passed over: no ending 3, .e0 1, .e1 1, .e10 1, .e11 1, .e12 1, .e13 1, .e14 1, "
        "others 25"
    )
