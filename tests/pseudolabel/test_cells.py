"""The stored confidence of a cell is the mean of its pixels, however many there are."""

import numpy as np
import pytest
import torch

from pipeline.records.label_store import CONFIDENCE_STRIDE
from stages.labels.pseudo_labels import PseudoLabels
from stages.pseudolabel.labelers.base import ImageBatch
from stages.pseudolabel.stored_labels import as_stored, from_cells, to_cells


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


def test_labels_as_stored_have_the_confidence_of_their_cells() -> None:
    """Of a canvas of 8 px whose second image is 8 x 5 px."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.randint(0, 3, (2, 8, 8), generator=generator).float()
    confidence = torch.rand(2, 8, 8, generator=generator)
    images = ImageBatch(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), ((8, 8), (8, 5)))
    found = as_stored(PseudoLabels(mask, confidence), images)
    for index, (height, width) in enumerate(images.sizes):
        own = (index, slice(height), slice(width))
        expected = from_cells(to_cells(confidence[own]), mask[own])
        assert torch.equal(found.mask[own], mask[own])
        assert torch.equal(found.confidence[own], expected)
    assert (found.mask[1, :, 5:] == 255).all()
    assert (found.confidence[1, :, 5:] == 0).all()
