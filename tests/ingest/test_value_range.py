"""Images of 16 bits: those of a sensor of fewer bits, with and without `value_range`."""

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
from stages.ingest.image_remarks import remark_of
from stages.ingest.output import read_images
from stages.labels.images import fitted_pixels, read_pixels

TWELVE_BITS = np.linspace(0, 4095, 24 * 32).reshape(24, 32).astype(np.uint16)
Ingest = Callable[..., CompletedProcess[str]]
Rows = Callable[[], pd.DataFrame]


def encoded(values: np.ndarray[Any, Any], file_format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, file_format)
    return buffer.getvalue()


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_a_value_range_becomes_black_to_white(file_format: str) -> None:
    content = encoded(TWELVE_BITS, file_format)
    assert len(np.unique(images.decode_image(content).pixels)) == 16
    decoded = images.decode_image(content, value_range=(0, 4095))
    expected = np.round(TWELVE_BITS / 4095 * 255)
    np.testing.assert_array_equal(decoded.pixels, np.repeat(expected[..., None], 3, 2))
    assert (decoded.max_value, decoded.is_scaled) == (4095, True)


def test_values_outside_of_the_range_are_clipped() -> None:
    content = encoded(np.array([[0, 1000, 1500, 2000, 65535]], np.uint16))
    pixels = images.decode_image(content, value_range=(1000, 2000)).pixels
    assert pixels[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_images_of_8_bits_have_no_value_range() -> None:
    content = encoded(np.full((2, 2), 7, np.uint8))
    decoded = images.decode_image(content, value_range=(0, 4095))
    assert (decoded.pixels == 7).all()
    assert (decoded.max_value, decoded.is_scaled) == (None, False)


def test_a_range_is_part_of_the_id() -> None:
    content = encoded(TWELVE_BITS)
    own = images.image_id(content, (5, 4095))
    assert own == f"{images.content_id(content)}@5-4095"
    assert images.range_of(own) == (5, 4095)
    assert images.range_of(images.image_id(content)) is None


def test_bits_that_are_not_used_are_remarked_until_the_range_is_given(
    ingest: Ingest, rows: Rows, data: Path, tiny: dict[str, Any]
) -> None:
    first, second = (data / f"ood/images/{name}.png" for name in "01")
    for path in (first, second):
        path.write_bytes(encoded(TWELVE_BITS + int(path.stem) * 0))
    second.write_bytes(encoded(TWELVE_BITS[::-1].copy()))
    done = ingest()
    assert (
        "warning: ood: 2 images: only 12 of 16 bits used, so 16 grey levels remain: give "
        f"`value_range: [0, 4095]`; first: {first}\n"
    ) in done.stderr
    before = rows()
    tiny["ingest"]["sources"]["ood"]["value_range"] = [0, 4095]
    done = ingest()
    assert "ingest.sources.ood.value_range" in done.stderr
    assert "warning" not in done.stderr
    after = rows()
    deep = ["ood/images/0.png", "ood/images/1.png"]
    assert (after.image_id[deep] == before.image_id[deep] + "@0-4095").all()
    others = after.index.difference(deep)
    assert (after.image_id[others] == before.image_id[others]).all()  # their labels stay fresh
    manifests = Path(tiny["workspace"], "manifests", tiny["run"])
    row = read_images(manifests, ["ood"]).to_pylist()[0]
    expected = np.round(TWELVE_BITS / 4095 * 255)
    np.testing.assert_array_equal(read_pixels(row)[..., 0], expected)
    np.testing.assert_array_equal(fitted_pixels(row, 32)[..., 0], expected)
    tiny["ingest"]["sources"]["ood"]["value_range"] = [0, 1023]
    text = f"ood: 2 images: values above 1023, which become white; first: {first}\n"
    assert text in ingest().stderr


def test_equal_bytes_are_duplicates_whatever_their_ranges_are(
    ingest: Ingest, rows: Rows, data: Path, tiny: dict[str, Any]
) -> None:
    for path in (data / "ood/images/0.png", data / "unlabeled/images/0.png"):
        path.write_bytes(encoded(TWELVE_BITS))
    tiny["ingest"]["sources"]["ood"]["value_range"] = [0, 4095]
    ingest()
    assert rows().status[["unlabeled/images/0.png", "ood/images/0.png"]].tolist() == [
        "ok",
        "duplicate",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([4095, 0], "write the darkest value first: [0, 4095]"),
        ([0, 70000], "65535"),
        ([0], "value_range"),
        ("12 bits", "value_range"),
    ],
)
def test_mistakes_in_the_range_are_one_line(
    value: object, text: str, ingest: Ingest, tiny: dict[str, Any]
) -> None:
    tiny["ingest"]["sources"]["ood"]["value_range"] = value
    done = ingest()
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert text in done.stderr


def test_a_key_that_is_left_out_is_no_fact(tiny: dict[str, Any]) -> None:
    """Labels that were made before there was the key stay fresh."""
    from stages.ingest.config import SourceConfig

    source = SourceConfig.model_validate(tiny["ingest"]["sources"]["ood"])
    assert "x.value_range" not in source.facts("x")
    given = SourceConfig.model_validate(
        {**tiny["ingest"]["sources"]["ood"], "value_range": [0, 4095]}
    )
    assert given.facts("x")["x.value_range"] == [0, 4095]


@pytest.mark.parametrize(
    ("values", "value_range", "remark"),
    [
        ((29000, 30999), None, "only 9 grey levels: give `value_range` around values as 29000 to"),
        ((0, 60000), None, None),
        ((70000, 90000), None, "values outside 0 to 65535"),
        ((-500, 255), None, "values outside 0 to 65535"),
        ((10, 4000), (5000, 6000), "only values below 5000, which become black"),
    ],
)
def test_ranges_that_leave_few_grey_levels_are_remarked(
    values: tuple[int, int], value_range: tuple[int, int] | None, remark: str | None
) -> None:
    pixels = np.linspace(*values, 64 * 48).astype(np.int32).reshape(48, 64)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "TIFF")
    found = remark_of(images.decode_image(buffer.getvalue(), value_range=value_range), value_range)
    assert found is None if remark is None else found is not None and found.startswith(remark)
