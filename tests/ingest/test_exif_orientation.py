"""Images that their EXIF data turn, in sources that apply it and in sources that ignore it."""

import io
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.images import images
from stages.ingest.output import read_images
from stages.labels.images import fitted_pixels, read_mask, read_pixels
from tests.finished_run import load

PIXELS = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
Ingest = Callable[..., CompletedProcess[str]]
Rows = Callable[[], pd.DataFrame]


def turned(orientation: int, file_format: str) -> bytes:
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PIXELS).save(buffer, file_format, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_pixels_are_those_that_are_stored(orientation: int, file_format: str) -> None:
    decoded = images.decode_image(turned(orientation, file_format), as_stored=True)
    np.testing.assert_array_equal(decoded.pixels, PIXELS)
    assert decoded.orientation == orientation


def test_what_is_ignored_is_part_of_the_id() -> None:
    content = turned(6, "PNG")
    own = images.content_id(content)
    for value_range, as_stored, expected in (
        (None, False, own),
        (None, True, f"{own}@stored"),
        ((0, 9), False, f"{own}@0-9"),
        ((0, 9), True, f"{own}@0-9,stored"),
    ):
        found = images.image_id(content, value_range, as_stored=as_stored)
        assert found == expected
        assert (images.range_of(found), images.is_as_stored(found)) == (value_range, as_stored)
    np.testing.assert_array_equal(images.decode_pixels(content, f"{own}@stored"), PIXELS)
    assert images.decode_pixels(content, own).shape == (32, 24, 3)


def test_a_source_may_ignore_it(
    ingest: Ingest,
    rows: Rows,
    tiny: dict[str, Any],
    data: Path,
    write_config: Callable[..., Path],
) -> None:
    """The label file fits the image as it is stored, and later readers read it so."""
    (data / "labeled/images/0.png").write_bytes(turned(6, "PNG"))
    refused = ingest()
    assert refused.returncode == 1
    assert "is 24 x 32 after its EXIF orientation; stored 32 x 24" in refused.stderr
    source = tiny["ingest"]["sources"]["labeled"]
    source["exif_orientation"] = "ignore"
    config = write_config(tiny)
    assert ingest().returncode == 0
    found = rows()
    (image,) = found[found.image_id.fillna("").str.endswith("@stored")].to_dict("records")
    assert (image["width"], image["height"]) == (32, 24)
    loaded = load(path=config)
    (row,) = [
        row
        for row in read_images(loaded.manifests, ["labeled"]).to_pylist()
        if row["image_id"] == image["image_id"]
    ]
    np.testing.assert_array_equal(read_pixels(row), PIXELS)
    assert fitted_pixels(row, 64).shape == (48, 64, 3)
    assert read_mask(row, loaded.vocabulary).shape == (24, 32)
    del source["exif_orientation"]
    assert "stored 32 x 24" in ingest().stderr


def test_a_label_file_must_not_be_turned_there(
    ingest: Ingest, tiny: dict[str, Any], data: Path
) -> None:
    tiny["ingest"]["sources"]["labeled"]["exif_orientation"] = "ignore"
    path = data / "labeled/masks/1.png"
    exif = Image.Exif()
    exif[0x0112] = 3
    with Image.open(path) as mask:
        mask.load()
        mask.save(path, exif=exif)
    what = "the label file has an EXIF orientation, which its source ignores; save it without"
    refused = ingest()
    assert refused.returncode == 1
    assert f"error: {path}: {what}" in refused.stderr
