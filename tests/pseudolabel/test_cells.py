"""The stored confidence of a cell is the mean of its pixels, however many there are."""

import numpy as np
import pytest
import torch

from pipeline.records.label_store import CONFIDENCE_STRIDE
from stages.pseudolabel.stored_labels import from_cells, to_cells


@pytest.mark.parametrize("size", [(8, 8), (4, 12), (5, 7), (1, 9), (3, 3)])
def test_a_cell_is_the_mean_of_its_pixels(size: tuple[int, int]) -> None:
    height, width = size
    pixels = np.random.default_rng(0).random(size, np.float32)
    cells = to_cells(torch.from_numpy(pixels))
    side = CONFIDENCE_STRIDE
    expected = [
        [pixels[y : y + side, x : x + side].mean() for x in range(0, width, side)]
        for y in range(0, height, side)
    ]
    np.testing.assert_array_equal(cells, np.rint(255 * np.array(expected)).astype(np.uint8))


def test_a_mean_is_rounded_and_not_cut() -> None:
    levels = torch.tensor([0.4, 0.6, 254.4, 254.6]) / 255
    cells = to_cells(levels.repeat_interleave(4).expand(4, 16))
    assert cells.tolist() == [[0, 1, 254, 255]]


def test_reading_gives_the_cells_back_where_they_are_flat() -> None:
    mask = torch.zeros(6, 10, dtype=torch.int64)
    mask[0, 0] = 255
    fine = from_cells(np.full((2, 3), 102, np.uint8), mask)
    assert fine[0, 0] == 0
    torch.testing.assert_close(fine[1:], torch.full((5, 10), 0.4))
