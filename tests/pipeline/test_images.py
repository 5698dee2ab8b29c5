import os
import random
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.images import images, webp
from pipeline.images.faults import UnreachableImageError, UnreadableImageError
from pipeline.images.jpeg import count_scans
from pipeline.images.label_files import decode_labels
from pipeline.images.limits import Limits

# Left half red, right half blue: JPEG keeps these well enough to tell them apart.
RED_BLUE = Image.new("RGB", (32, 16), "red")
RED_BLUE.paste("blue", (16, 0, 32, 16))


def encoded(image: Image.Image, file_format: str = "PNG", **keys: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, file_format, **keys)
    return buffer.getvalue()


@pytest.mark.parametrize("marker", [0x01, 0xD0, 0xD7])
def test_a_marker_without_a_length_hides_no_scan(marker: int) -> None:
    scan = b"\xff\xda\x00\x02"
    assert count_scans(b"\xff\xd8" + bytes([0xFF, marker]) + scan * 3 + b"\xff\xd9") == 3


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM"])
def test_every_format_of_the_web_becomes_rgb(file_format: str) -> None:
    decoded = images.decode_image(encoded(RED_BLUE, file_format))
    assert decoded.format == file_format
    assert decoded.pixels.shape == (16, 32, 3)
    assert decoded.pixels.dtype == np.uint8
    np.testing.assert_allclose(decoded.pixels[:, 4], [[255, 0, 0]] * 16, atol=12)
    np.testing.assert_allclose(decoded.pixels[:, -4], [[0, 0, 255]] * 16, atol=12)


UPRIGHT: dict[int, Callable[[Any], Any]] = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),  # the camera was held upright: left is shown on top
    7: lambda stored: np.rot90(stored, 2).transpose(1, 0, 2),
    8: np.rot90,
}
FOUR_COLORS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [0, 0, 0]]], np.uint8)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_exif_orientation_is_applied(orientation: int, file_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = FOUR_COLORS.repeat(2, axis=0)
    content = encoded(Image.fromarray(stored), file_format, exif=exif)
    expected = UPRIGHT[orientation](stored)
    np.testing.assert_array_equal(images.decode_image(content).pixels, expected)
    np.testing.assert_array_equal(decode_labels(content), expected)


@pytest.mark.parametrize(
    "exif",
    [b"Exif\0\0" + bytes(40), b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM" + b"\xff" * 60000],
)
def test_good_pixels_with_damaged_exif_are_taken(exif: bytes) -> None:
    assert images.decode_image(encoded(RED_BLUE, "JPEG", exif=exif)).pixels.shape == (16, 32, 3)


def test_cmyk_becomes_rgb() -> None:
    pixels = images.decode_image(encoded(RED_BLUE.convert("CMYK"), "JPEG", quality=95)).pixels
    np.testing.assert_allclose(pixels[8, 4], [255, 0, 0], atol=12)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_white(mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 4, 8))
    pixels = images.decode_image(encoded(image.convert(mode))).pixels
    assert pixels[0, 0].tolist() == [0, 0, 0]
    assert pixels[0, 7].tolist() == [255, 255, 255]


def test_16_bits_are_scaled_to_8() -> None:
    values = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    for file_format in ("PNG", "TIFF"):
        pixels = images.decode_image(encoded(Image.fromarray(values), file_format)).pixels
        assert pixels[0].tolist() == [[v, v, v] for v in (0, 0, 1, 128, 255)]


def test_of_an_animation_the_first_frame_counts() -> None:
    blue = Image.new("RGB", (32, 16), "blue")
    for file_format in ("GIF", "PNG", "WEBP"):
        content = encoded(RED_BLUE, file_format, save_all=True, append_images=[blue, blue])
        pixels = images.decode_image(content).pixels
        np.testing.assert_allclose(pixels[8, 4], [255, 0, 0], atol=12)


def test_labels_keep_their_values() -> None:
    ids = np.arange(12, dtype=np.uint8).reshape(3, 4)
    palette = Image.fromarray(ids)
    palette.putpalette([value for i in range(256) for value in (i * 7 % 256, i * 3 % 256, i)])
    wide = ids.astype(np.uint16) * 5000
    bits = Image.fromarray(ids % 2 == 1)
    with_alpha = Image.merge("LA", (Image.fromarray(ids), Image.fromarray(255 - ids)))
    for image, expected in (
        (Image.fromarray(ids), ids),
        (palette, ids),  # as in VOC: the file is shown in colours, its values are ids
        (Image.fromarray(wide), wide),
        (bits, ids % 2),
        (with_alpha, ids),
    ):
        np.testing.assert_array_equal(decode_labels(encoded(image)), expected)


def test_labels_of_colors_keep_them_whatever_alpha_says() -> None:
    colors = np.array([[[128, 0, 0], [0, 128, 0]]], np.uint8)
    see_through = Image.fromarray(colors).convert("RGBA")
    see_through.putalpha(0)
    for image in (Image.fromarray(colors), see_through):
        np.testing.assert_array_equal(decode_labels(encoded(image)), colors)


def test_fractions_are_neither_labels_nor_images() -> None:
    fractions = encoded(Image.fromarray(np.full((4, 4), 0.5, np.float32)), "TIFF")
    with pytest.raises(UnreadableImageError, match="labels are whole numbers"):
        decode_labels(fractions)
    with pytest.raises(UnreadableImageError, match="images are of whole numbers"):
        images.decode_image(fractions)


PNG = encoded(RED_BLUE)
DAMAGED = {
    "text": (b"\n<!DOCTYPE html><p>404", "an HTML page, which is not decoded"),
    "nothing": (b"", "not an image of a known format"),
    "truncated": (PNG[:-40], "damaged: "),
    "program": (encoded(RED_BLUE, "EPS"), "a PostScript file, which is not decoded"),
}


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.parametrize("decode", [images.decode_image, decode_labels])
def test_what_is_no_image_is_refused_with_a_reason(
    kind: str, decode: Callable[[bytes], object]
) -> None:
    content, reason = DAMAGED[kind]
    with pytest.raises(UnreadableImageError) as error:
        decode(content)
    assert str(error.value).startswith(reason)
    assert not isinstance(error.value, UnreachableImageError)


def test_a_bomb_is_refused_before_a_pixel_is_decoded() -> None:
    bomb = b"P6 40000 30000 255\n" + bytes(100)
    with pytest.raises(UnreadableImageError, match="40000 x 30000 pixels; at most 100,000,000"):
        images.decode_image(bomb, Limits())


def test_a_decoder_that_takes_too_long_is_stopped() -> None:
    with pytest.raises(UnreadableImageError, match=r"^takes more than 1e-09 s to decode$"):
        images.decode_image(PNG, Limits(max_seconds=1e-9))


def scan_bomb(scans: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again: 141 bytes for a pass over all."""
    content = encoded(Image.new("L", (64, 64), 100), "JPEG", progressive=True)
    first, last = content.index(b"\xff\xda"), content.rindex(b"\xff\xda")
    known = content.count(b"\xff\xda", first)
    return content[:-2] + content[last:-2] * (scans - known) + content[-2:]


def test_a_jpeg_of_a_thousand_scans_is_refused() -> None:
    assert images.decode_image(scan_bomb(100)).pixels.shape == (64, 64, 3)
    with pytest.raises(UnreadableImageError, match=r"^1,000 scans; at most 100 are decoded$"):
        images.decode_image(scan_bomb(1000))


def test_what_only_looks_like_scans_does_not_count() -> None:
    comment = b"\xff\xda" * 200  # inside a metadata segment, and as of a video behind the image
    content = encoded(RED_BLUE, "JPEG", comment=comment) + comment
    assert images.decode_image(content).pixels.shape == (16, 32, 3)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "AVIF"])
def test_hostile_bytes_never_raise_anything_else(file_format: str) -> None:
    if file_format not in Image.registered_extensions().values():
        pytest.skip(f"this Pillow cannot read {file_format}")
    dice = random.Random(0)
    good = encoded(RED_BLUE, file_format)
    refused = 0
    for _ in range(150):
        content = bytearray(good)
        for _ in range(dice.choice((1, 2, 5))):
            content[dice.randrange(min(len(content), 300))] = dice.randrange(256)
        try:
            images.decode_image(bytes(content[: dice.choice((len(good), len(good) // 2))]))
        except UnreadableImageError:
            refused += 1
    assert refused > 20


def test_files_are_read_within_limits(tmp_path: Path) -> None:
    good, empty, large = (tmp_path / name for name in ("good", "empty", "large"))
    good.write_bytes(PNG)
    empty.touch()
    with large.open("wb") as handle:
        handle.truncate(Limits().max_bytes + 1)  # a hole: takes no space
    os.mkfifo(pipe := tmp_path / "pipe")
    assert images.read_bytes(str(good)) == PNG
    for path, reason in (
        (empty, "the file is empty"),
        (large, "268,435,457 bytes; at most 268,435,456 are read"),
        (tmp_path, "not a plain file"),
        (pipe, "not a plain file"),
        (tmp_path / "none", "cannot be read: No such file or directory"),
        (Path("a\0b"), "cannot be read: embedded null byte"),
    ):
        with pytest.raises(UnreadableImageError) as error:
            images.read_bytes(str(path), Limits())
        assert str(error.value) == reason


def test_the_id_is_that_of_the_bytes() -> None:
    assert images.content_id(b"") == "e3b0c44298fc1c14"
    assert images.content_id(b"a") != images.content_id(b"b")


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (96, 128)), ((640, 480), (128, 96)), ((3, 5000), (1, 128)), ((8, 8), (128, 128))],
)
def test_images_are_fitted_by_their_long_side(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert images.fitted_size(*size, 128) == expected
    pixels = np.full((*size, 3), 77, np.uint8)
    fitted = images.fit(pixels, 128)
    assert fitted.shape == (*expected, 3)
    assert (fitted == 77).all()


def test_an_image_that_fits_is_left_alone() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    assert images.fit(pixels, 128) is pixels


@pytest.mark.parametrize("keys", [{}, {"lossless": True}, {"exif": b"Exif\0\0" + bytes(40)}])
def test_the_pixels_of_a_webp_are_known_before_it_is_opened(keys: dict[str, Any]) -> None:
    content = encoded(Image.new("RGB", (300, 7), "red"), "WEBP", **keys)
    assert webp.count_pixels(content) == 2100
    assert webp.is_lossless(content) == ("lossless" in keys)
    assert webp.count_pixels(PNG) == webp.count_pixels(content[:20]) == 0


def test_an_image_in_an_archive_may_have_as_many_bytes_as_are_accepted(tmp_path: Path) -> None:
    content = b"0123456789"
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        entry = tarfile.TarInfo("a.png")
        entry.size = len(content)
        archive.addfile(entry, BytesIO(content))
    uri = f"{tmp_path}/0.tar#a.png@512+{len(content)}"
    assert images.read_bytes(uri, Limits(max_bytes=10)) == content
    with pytest.raises(UnreadableImageError, match="10 bytes; at most 9 are read"):
        images.read_bytes(uri, Limits(max_bytes=9))


def test_of_16_bits_in_colours_the_lower_8_count_as_set() -> None:
    colours = np.zeros((2, 2, 3), np.uint16)
    colours[0, 0] = 200 << 8
    encoded_colours = cv2.imencode(".png", colours)[1].tobytes()
    assert images.decode_image(encoded_colours).max_value == 200 << 8 | 255
