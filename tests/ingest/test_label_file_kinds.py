"""Label files that hold what was saved, and those that do not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.config.vocabulary import CLASS_COLORS
from pipeline.images.faults import UnreadableImageError
from pipeline.images.label_files import decode_labels
from tests.conftest import VOCABULARY
from tests.ingest.masks import (
    COLORS,
    IDS,
    Ingest,
    Scan,
    assert_read,
    encoded,
    grey,
    in_colors,
    palette_of,
    scan_one,
)

__all__ = ["scan_one"]


@pytest.mark.parametrize(("mask", "scheme"), [(in_colors(), "rest"), (grey(), "rest of colors")])
def test_the_others_of_a_scheme_are_of_its_kind(
    mask: Image.Image, scheme: str, scan_one: Scan
) -> None:
    """Else a whole file that the scheme is not for would be one class."""
    assert "is not in the vocabulary" in str(scan_one(mask, scheme).problem)


def tiff(*pages: Image.Image) -> bytes:
    return encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])


PREVIEW = grey().resize((32, 24))
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "JPEG": (lambda: encoded(grey(), "JPEG", quality=100), "JPEG changes values: save PNG"),
    "JPEG in a TIFF": (
        lambda: encoded(grey(), "TIFF", compression="jpeg"),
        "JPEG in a TIFF changes values: save PNG",
    ),
    "lossy WebP": (
        lambda: encoded(in_colors(), "WEBP"),
        "lossy WebP changes values: save PNG",
    ),
    "AVIF": (lambda: encoded(in_colors(), "AVIF"), "AVIF changes values: save PNG"),
    "JPEG 2000": (
        lambda: encoded(grey(), "JPEG2000", quality_layers=[20]),
        "JPEG 2000 changes values: save PNG",
    ),
    "16 bits a channel": (lambda: deep_png(), "16 bits a channel, of which only 8 can be read: "),
    "a scaled PGM": (
        lambda: b"P5 64 48 2\n" + np.minimum(IDS, 2).tobytes(),
        "its values are scaled, since its header has 2 as the largest one: save PNG",
    ),
    "a GIF of greys": (lambda: encoded(grey(IDS % 5 * 7), "GIF"), "GIF renumbers values: "),
    "two pages": (lambda: tiff(grey(), grey()), "holds 2 pictures; a label file holds one"),
    "an animation": (
        lambda: encoded(grey(), "GIF", save_all=True, append_images=[grey(IDS * 0)]),
        "holds 2 pictures; a label file holds one",
    ),
}


def deep_png() -> bytes:
    """A PNG of colours with 16 bits a channel, of which Pillow would read the upper 8: all 0."""
    from zlib import compress

    from tests.ingest.test_hostile import chunk

    deep = np.repeat(IDS.astype(">u2")[..., None], 3, 2)
    lines = b"".join(b"\0" + line.tobytes() for line in deep)
    header = (64).to_bytes(4, "big") + (48).to_bytes(4, "big") + bytes([16, 2, 0, 0, 0])
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("kind", REFUSED)
def test_files_that_do_not_hold_what_was_saved_are_refused(kind: str, scan_one: Scan) -> None:
    make, reason = REFUSED[kind]
    content = make()
    with pytest.raises(UnreadableImageError) as error:
        decode_labels(content)
    assert str(error.value).startswith(reason)
    problem = str(scan_one(content).problem)
    assert f"cannot read the label file: {reason}" in problem
    assert problem.endswith("; replace it with a label image, e.g. a PNG of class ids")


EXACT: dict[str, Callable[[], bytes]] = {
    "BMP": lambda: encoded(grey(), "BMP"),
    "GIF": lambda: encoded(palette_of(COLORS), "GIF", optimize=False),
    "a GIF of black and white": lambda: encoded(grey(IDS // 255 * 255), "GIF"),
    "PGM": lambda: encoded(grey(), "PPM"),
    "lossless WebP": lambda: encoded(grey(), "WEBP", lossless=True),
    "LZW": lambda: encoded(grey(), "TIFF", compression="tiff_lzw"),
    "a TIFF with a preview": lambda: tiff(grey(), PREVIEW),
    "32 bits": lambda: encoded(Image.fromarray(IDS.astype(np.int32)), "TIFF"),
}


@pytest.mark.parametrize("kind", EXACT)
def test_files_that_hold_what_was_saved_are_read(kind: str, scan_one: Scan) -> None:
    expected = np.where(IDS == 255, 1, 0) if "black and white" in kind else IDS
    assert_read(scan_one(EXACT[kind]()), expected)


def test_changed_class_colors_make_what_was_read_by_them_stale(
    ingest: Ingest, rows: Callable[[], pd.DataFrame], data: Path, tiny: dict[str, Any]
) -> None:
    for path in (data / "labeled/masks").iterdir():
        with Image.open(path) as mask:
            ids = np.asarray(mask)
        Image.fromarray(COLORS[ids]).save(path)
    assert ingest().returncode == 0
    schemes = rows().label_scheme
    assert set(schemes[rows().role == "labeled"]) == {CLASS_COLORS}
    assert schemes[rows().role != "labeled"].isna().all()
    assert "ingest: nothing to do, 2 fresh\n" in ingest().stderr
    swapped = [*VOCABULARY["classes"]]
    swapped[1], swapped[2] = ({**swapped[n], "color": swapped[3 - n]["color"]} for n in (1, 2))
    done = ingest(classes=swapped)
    assert "ingest: vocabulary.class_colors.#0000ff 2 -> 1: shard 0\n" in done.stderr
    other = [{**entry, "color": "#123456"} for entry in VOCABULARY["classes"]]
    done = ingest(classes=other)
    assert done.returncode == 1
    assert "colour #0000ff, #ff0000 is not in the vocabulary" in done.stderr
    for path in (data / "labeled/masks").iterdir():
        grey(np.eye(24, 32, dtype=np.uint8)).save(path)
    assert ingest(classes=other).returncode == 0
    assert "ingest: nothing to do, 2 fresh\n" in ingest().stderr  # no file is in these colors now
