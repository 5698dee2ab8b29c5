"""Resizing on bytes, compared with OpenCV and Pillow themselves and with their formulas."""

import math

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from stages.pseudolabel.pixels.byte_resize import opencv, pillow

Bytes = npt.NDArray[np.uint8]

SIZES = [
    ((37, 53), (17, 24)),
    ((37, 53), (74, 106)),
    ((40, 60), (20, 30)),  # halves, for which OpenCV has a rule of its own
    ((375, 500), (336, 448)),
    ((480, 640), (336, 448)),
    ((1, 9), (5, 4)),
    ((9, 1), (4, 5)),
    ((1, 1), (3, 2)),
    ((3, 200), (1, 1)),
]


def noise(size: tuple[int, int]) -> Bytes:
    return np.random.default_rng(sum(size)).integers(0, 256, (*size, 3), np.uint8)


def resized(image: Bytes, size: tuple[int, int]) -> Bytes:
    return opencv(torch.from_numpy(image).movedim(-1, 0), size).movedim(0, -1).numpy()


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_bytes_are_opencv_s(before: tuple[int, int], after: tuple[int, int]) -> None:
    image = noise(before)
    expected = cv2.resize(image, after[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(resized(image, after), expected)


def test_random_sizes_are_opencv_s() -> None:
    random = np.random.default_rng(0)
    for _ in range(60):
        before, after = (tuple(map(int, random.integers(1, 150, 2))) for _ in range(2))
        image = noise(before)  # type: ignore[arg-type]
        expected = cv2.resize(image, after[::-1], interpolation=cv2.INTER_LINEAR)
        np.testing.assert_array_equal(resized(image, after), expected)  # type: ignore[arg-type]


def test_it_is_bilinear_between_two_pixels_within_a_level() -> None:
    """The formula in floating point, of a line; no pixel between the two counts."""
    line, after = noise((1, 61)), 20
    found = resized(line, (1, after))[0].astype(float)
    for place in range(after):
        center = (place + 0.5) * 61 / after - 0.5
        first = math.floor(center)
        share = center - first
        expected = (1 - share) * line[0, first] + share * line[0, min(first + 1, 60)]
        assert np.abs(found[place] - expected).max() <= 1


@pytest.mark.parametrize("filter_", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
@pytest.mark.parametrize(("before", "after"), SIZES[:5])
def test_bytes_are_pillow_s(
    before: tuple[int, int], after: tuple[int, int], filter_: Image.Resampling
) -> None:
    image = noise(before)
    found = pillow(torch.from_numpy(image).movedim(-1, 0), after, filter_)
    expected = np.array(Image.fromarray(image).resize(after[::-1], filter_))
    np.testing.assert_array_equal(found.movedim(0, -1).numpy(), expected)
