"""Hostile images: each becomes a correct RGB image, or a row that says what is wrong."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.images import images

SIZE = (48, 32)
FINE: dict[str, Any] = {"quality": 95, "subsampling": 0}
PICTURE = Image.new("RGB", SIZE, (200, 40, 40))
PICTURE.paste((40, 60, 200), (24, 0, 48, 32))


def encoded(image: Image.Image, file_format: str, **keys: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **keys)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def png(width: int, height: int, *chunks: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def oriented(orientation: int) -> bytes:
    """A JPEG that is `PICTURE` once it is turned as its EXIF says."""
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = PICTURE if back is None else PICTURE.transpose(Image.Transpose(back))
    return encoded(stored, "JPEG", **FINE, exif=exif)


def huge_exif() -> bytes:
    exif = Image.Exif()
    exif[0x010E] = "x" * 65_000
    return encoded(PICTURE, "JPEG", **FINE, exif=exif)


def ycck() -> bytes:
    """A JPEG of four channels whose Adobe marker says YCCK; its pixels are what Pillow makes it."""
    content = encoded(PICTURE.convert("CMYK"), "JPEG", **FINE)
    adobe = content.index(b"Adobe")
    return content[: adobe + 11] + b"\x02" + content[adobe + 12 :]


def see_through() -> Image.Image:
    """`PICTURE` where it is opaque, with nothing, that is white, to its right."""
    image = Image.new("RGBA", (64, 32), (0, 255, 0, 0))
    image.paste(PICTURE, (0, 0))
    return image


ANIMATED = {"save_all": True, "append_images": [Image.new("RGB", SIZE, "green")] * 2}
JPEG = encoded(PICTURE, "JPEG", **FINE)
PROGRESSIVE = encoded(PICTURE, "JPEG", **FINE, progressive=True)
PNG = encoded(PICTURE, "PNG")
WIDE = np.asarray(PICTURE.convert("L")).astype(np.uint16) * 257

GOOD = {
    "plain.jpg": JPEG,
    "progressive.jpg": PROGRESSIVE,
    **{f"orientation-{number}.jpg": oriented(number) for number in range(1, 9)},
    "huge-exif.jpg": huge_exif(),
    "broken-exif.jpg": encoded(PICTURE, "JPEG", **FINE, exif=b"Exif\0\0MM\0*" + b"\xff" * 99),
    "cmyk.jpg": encoded(PICTURE.convert("CMYK"), "JPEG", **FINE),
    "palette.png": encoded(PICTURE.quantize(8), "PNG"),
    "animated.gif": encoded(PICTURE, "GIF", **ANIMATED),
    "animated.webp": encoded(PICTURE, "WEBP", lossless=True, **ANIMATED),
    "animated.png": encoded(PICTURE, "PNG", **ANIMATED),
    "two-pictures.jpg": encoded(PICTURE, "MPO", **FINE, **ANIMATED),
    "a-png-in-truth.jpg": PNG,
    "a-jpeg-in-truth.gif": JPEG,
    "trailing-bytes.jpg": JPEG + b"\0" * 5000,
    "zip-of-text.png": PNG[:33] + chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(9999))) + PNG[33:],
}
GREY = {
    "grey.jpg": encoded(PICTURE.convert("L"), "JPEG", **FINE),
    "grey-alpha.png": encoded(PICTURE.convert("LA"), "PNG"),
    "16-bit.png": encoded(Image.fromarray(WIDE), "PNG"),
    "16-bit.tif": encoded(Image.fromarray(WIDE), "TIFF"),
}
TRANSPARENT = {
    "alpha.png": encoded(see_through(), "PNG"),
    "alpha.webp": encoded(see_through(), "WEBP", lossless=True),
    "palette-transparency.png": encoded(see_through().quantize(8), "PNG"),
    "palette-transparency.gif": encoded(see_through(), "GIF"),
}
SIZES = {
    "1x1.png": encoded(Image.new("RGB", (1, 1)), "PNG"),
    "1x20000.png": encoded(Image.new("RGB", (1, 20_000)), "PNG"),
    "20000x1.jpg": encoded(Image.new("RGB", (20_000, 1)), "JPEG"),
    "1-bit.png": encoded(Image.new("1", (9, 9), 1), "PNG"),
    "ycck.jpg": ycck(),
}
BAD = {
    "empty.jpg": (b"", "the file is empty"),
    "zeros.jpg": (bytes(5000), "not an image of a known format"),
    "page.jpg": (b"\n<!DOCTYPE html><html>", "an HTML page, which is not decoded"),
    "page-2.png": (b"\xef\xbb\xbf<HTML><body>", "an HTML page, which is not decoded"),
    "drawing.jpg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing, which is not"),
    "drawing.png": (b"<?xml version='1.0'?><svg/>", "an XML file, which is not decoded"),
    "message.jpg": (b'{"error": 404}', "not an image of a known format"),
    "heic.jpg": (b"\0\0\0\x18ftypheic" + bytes(99), "a HEIC image, which is not decoded"),
    "jxl.jpg": (b"\xff\x0a" + bytes(99), "a JPEG XL image, which is not decoded"),
    "video.gif": (b"\0\0\0\x18ftypisom" + bytes(99), "a video, which is not decoded"),
    "document.png": (b"%PDF-1.7\n", "a PDF, which is not decoded"),
    "program.png": (encoded(PICTURE, "EPS"), "a PostScript file, which is not decoded"),
    "packed.jpg": (b"\x1f\x8b\x08" + bytes(99), "a gzip file, which is not decoded"),
    "bomb.png": (png(40_000, 40_000), "40000 x 40000 pixels; at most 100,000,000 are decoded"),
    "small-bomb.png": (png(9000, 9000, chunk(b"IDAT", zlib.compress(b"x"))), "damaged: "),
    "bomb.jpg": (JPEG.replace(struct.pack(">HH", 32, 48), b"\xff\xf0\xff\xf0", 1), "65520 x 65520"),
    "no-pixels.png": (png(0, 5), "damaged: "),
    "wrong-checksum.png": (PNG[:50] + b"\0\0\0\0" + PNG[54:], "damaged: "),
    "fractions.tif": (encoded(Image.new("F", SIZE), "TIFF"), "its pixels are fractions; "),
    "half.gif": (GOOD["animated.gif"][:60], "damaged: "),
    "half.webp": (GOOD["animated.webp"][:60], ""),
    "half.png": (PNG[:-30], "damaged: "),
}


def cut_at_every_marker(content: bytes) -> dict[int, bytes]:
    """A JPEG up to each of its markers, and a byte into each."""
    position, cuts = 2, {}
    while content[position + 1] != 0xDA:
        cuts[position] = content[:position]
        cuts[position + 1] = content[: position + 1]
        position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    cuts |= {
        end: content[:end] for end in (position, position + 2, position + 14, len(content) - 2)
    }
    return cuts


@pytest.fixture
def corpus(data: Path, tmp_path: Path) -> dict[str, bytes]:
    """Writes every kind into the web images."""
    files = {**GOOD, **GREY, **TRANSPARENT, **SIZES, **{name: c for name, (c, _) in BAD.items()}}
    for kind, content in (("baseline", JPEG), ("progressive", PROGRESSIVE)):
        cuts = cut_at_every_marker(content)
        files |= {f"{kind}-cut-{end}.jpg": cut for end, cut in cuts.items()}
    folder = data / "ood/images"
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / os.fsdecode(b"caf\xe9.jpg")).write_bytes(JPEG)
    (folder / "caf\u00e9.jpg").write_bytes(GOOD["cmyk.jpg"])
    os.mkfifo(folder / "pipe.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "gone.jpg").symlink_to("nothing.jpg")
    (folder / "inside.jpg").symlink_to("plain.jpg")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/secret.jpg").write_bytes(JPEG)
    (folder / "outside.jpg").symlink_to(tmp_path / "secrets/secret.jpg")
    (folder / "outside").symlink_to(tmp_path / "secrets")
    return files


def test_every_image_of_a_hostile_corpus_is_right_or_says_why_not(
    corpus: dict[str, bytes],
    maskmill: Callable[..., CompletedProcess[str]],
    write_config: Callable[..., Path],
    tiny: dict[str, Any],
    rows: Callable[[], pd.DataFrame],
    data: Path,
) -> None:
    done = maskmill("run", "ingest", "--config", write_config(tiny))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    table = rows()
    web = table[table.index.str.startswith("ood/images/")]
    web = web.set_index(web.index.str.removeprefix("ood/images/"))
    read = web.status.isin(["ok", "duplicate"])  # equal bytes are an image once
    assert len(web) >= len(corpus)
    assert web.error_message[web.status == "rejected"].str.len().min() > 5

    for name in (*GOOD, *GREY, *TRANSPARENT, *SIZES, "inside.jpg", "caf\u00e9.jpg"):
        assert read[name], (name, web.error_message[name])
    for name, (_, reason) in BAD.items():
        assert web.status[name] == "rejected", name
        assert web.error_message[name].startswith(reason), (name, web.error_message[name])
    cuts = [name for name in web.index if "-cut-" in name]
    assert len(cuts) > 30
    assert set(web.status[cuts]) == {"rejected"}

    expected = {
        "caf\\udce9.jpg": "its name is not UTF-8 text",
        "pipe.jpg": "not a plain file",
        "loop.jpg": "cannot be read: Too many levels of symbolic links",
        "gone.jpg": "cannot be read: No such file or directory",
    }
    out = f"leads out of {data}/ood/images; set `follow_links: true` where links may"
    expected |= {"outside.jpg": out, "outside": out}
    assert web.error_message[[*expected]].to_dict() == expected
    assert read.sum() == len({*GOOD, *GREY, *TRANSPARENT, *SIZES}) + 2 + 2  # + two of `data`


@pytest.mark.parametrize("name", GOOD)
def test_pictures_look_as_they_should(name: str) -> None:
    pixels = images.decode_image(GOOD[name]).pixels
    np.testing.assert_allclose(pixels, np.asarray(PICTURE), atol=12)
    assert np.abs(pixels.astype(int) - np.asarray(PICTURE)).mean() < 5


@pytest.mark.parametrize("name", GREY)
def test_grey_pictures_look_as_they_should(name: str) -> None:
    pixels = images.decode_image(GREY[name]).pixels
    expected = np.asarray(PICTURE.convert("L").convert("RGB"))
    np.testing.assert_allclose(pixels, expected, atol=6)


@pytest.mark.parametrize("name", TRANSPARENT)
def test_transparent_pixels_are_white(name: str) -> None:
    pixels = images.decode_image(TRANSPARENT[name]).pixels
    np.testing.assert_allclose(pixels[:, :48], np.asarray(PICTURE), atol=12)
    assert (pixels[:, 48:] == 255).all()
