"""Sizes are rounded to the nearest pixel, never cut, wherever an image is scaled."""

import pytest
import torch

from pipeline.images import images
from stages.models.segmenters.protocol import Protocol
from stages.pseudolabel.pixels.windows import scaled_size
from stages.train.data.geometry import random_view

SIZES = [(480, 640), (333, 500), (375, 500), (31, 97), (97, 31), (5, 640), (281, 500)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("long_side", [128, 321, 512])
def test_fitted_images(size: tuple[int, int], long_side: int) -> None:
    assert_rounded(images.fitted_size(*size, long_side), size, long_side / max(size))


@pytest.mark.parametrize("size", SIZES[:5])
@pytest.mark.parametrize("short_side", [50, 224, 336])
def test_images_for_clip(size: tuple[int, int], short_side: int) -> None:
    assert_rounded(scaled_size(*size, short_side), size, short_side / min(size))


@pytest.mark.parametrize("size", SIZES[:5])
@pytest.mark.parametrize("short_side", [50, 224, 512])
def test_images_to_predict(size: tuple[int, int], short_side: int) -> None:
    (found,) = Protocol(short_side_px=short_side).sizes(*size)
    assert_rounded(found, size, short_side / min(size))
    for scale in (0.5, 0.75, 1.3):
        (found,) = Protocol(scales=(scale,)).sizes(*size)
        assert_rounded(found, size, scale)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", [0.25, 0.5, 0.77])
def test_crops(size: tuple[int, int], scale: float) -> None:
    """The long side is cut to an integer as in UniMatch; the other follows it, rounded."""
    image = torch.zeros(3, *size, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(0)
    view = random_view(image, 640, generator, scale=(scale, scale))
    rows, columns = (int(view.valid.any(dim=dim).sum()) for dim in (1, 0))
    assert max(rows, columns) == int(scale * max(size))
    assert_rounded((rows, columns), size, int(scale * max(size)) / max(size))


def test_a_line_of_pixels_stays_a_line() -> None:
    line, scaled = (1, 2000), Protocol(scales=(0.25,))
    assert images.fitted_size(*line, 128) == (1, 128)
    assert scaled_size(*line, 50) == (1, 300)
    assert Protocol(short_side_px=50).sizes(*line) == [(1, 200)]
    assert scaled.sizes(*line) == [(1, 500)]
    generator = torch.Generator().manual_seed(0)
    image = torch.zeros(3, *line, dtype=torch.uint8)
    view = random_view(image, 640, generator, scale=(0.25, 0.25))
    assert int(view.valid.sum()) == 500


def assert_rounded(found: tuple[int, int], size: tuple[int, int], factor: float) -> None:
    for side, before in zip(found, size, strict=True):
        exact = max(1, before * factor)
        assert abs(side - exact) <= 0.5 + 1e-9, (found, size, factor)
