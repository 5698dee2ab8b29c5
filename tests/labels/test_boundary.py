import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from stages.labels.boundary import BoundaryCounts, boundary

Bytes = npt.NDArray[np.uint8]


def blobs(seed: int, size: tuple[int, int]) -> Bytes:
    """A mask of smooth regions of four classes and of ignored ones."""
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.normal(size=size), 6) for _ in range(5)]
    return np.asarray(np.array([0, 1, 2, 3, 255], np.uint8)[np.argmax(fields, axis=0)])


def eroded_boundary(of_class: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The authors' way: a class less itself eroded d times by 3 x 3, nothing beyond the image."""
    height, width = of_class.shape
    times = max(1, round(0.02 * np.sqrt(height**2 + width**2)))
    inside = ndimage.binary_erosion(of_class, np.ones((3, 3)), times, border_value=0)
    return np.asarray(of_class & ~inside)


def counted(*pairs: tuple[object, object], num_classes: int = 4) -> BoundaryCounts:
    counts = BoundaryCounts.empty(num_classes)
    for truth, predicted in pairs:
        counts.add(np.array(truth, np.uint8), np.array(predicted, np.uint8))
    return counts


@pytest.mark.parametrize("size", [(120, 160), (40, 30), (7, 9), (1, 1), (1, 300), (301, 200)])
def test_boundaries_are_those_of_the_authors(size: tuple[int, int]) -> None:
    mask = blobs(1, size)
    expected = np.zeros(size, bool)
    for class_id in range(4):
        expected |= eroded_boundary(mask == class_id)
    assert np.array_equal(boundary(mask), expected)


def test_the_boundary_of_a_square_is_a_ring() -> None:
    """100 x 100 px: the diagonal is 141, so a boundary is 3 px wide."""
    mask = np.zeros((100, 100), np.uint8)
    mask[20:60, 30:50] = 1
    found = boundary(mask)
    inside = np.zeros((100, 100), bool)
    inside[23:57, 33:47] = True
    assert np.array_equal(found & (mask == 1), (mask == 1) & ~inside)
    far = np.ones((100, 100), bool)
    far[:3] = far[-3:] = far[:, :3] = far[:, -3:] = False
    far[17:63, 27:53] = False
    assert np.array_equal(found & (mask == 0), (mask == 0) & ~far)


def test_a_shift_costs_more_at_the_boundary_than_inside() -> None:
    truth, predicted = np.zeros((2, 100, 100), np.uint8)
    truth[20:60, 20:60] = 1
    predicted[20:60, 21:61] = 1
    counts = counted((truth, predicted), num_classes=2)
    # Rings of 3 px: 40² - 34² = 444. They share 6 rows of 39, and 2 columns at each side of 34.
    assert counts.truth[1] == counts.predicted[1] == 444
    assert counts.intersection[1] == 6 * 39 + 34 * 4
    assert counts.iou[1] == pytest.approx(370 / (888 - 370))
    assert counts.iou[1] < 39 / 41


def test_counts_equal_those_of_a_class_after_the_other() -> None:
    pairs = [(blobs(seed, (90, 120)), blobs(seed + 50, (90, 120))) for seed in range(3)]
    found = counted(*pairs).iou
    for class_id in range(4):
        intersection = union = 0
        for truth, predicted in pairs:
            mine = eroded_boundary(truth == class_id)
            theirs = eroded_boundary((predicted == class_id) & (truth != 255))
            intersection += (mine & theirs).sum()
            union += (mine | theirs).sum()
        assert found[class_id] == pytest.approx(intersection / union)


def test_the_mean_is_over_classes_that_occur() -> None:
    truth = np.zeros((8, 8), np.uint8)
    predicted = truth.copy()
    predicted[:, 4:] = 2
    counts = counted((truth, predicted))
    assert np.isnan(counts.iou).tolist() == [False, True, False, True]
    assert counts.iou[2] == 0
    assert counts.miou == pytest.approx(counts.iou[0] / 2)
    assert counted((truth, truth)).miou == 1


def test_ignored_pixels_do_not_count() -> None:
    truth = np.zeros((30, 30), np.uint8)
    truth[:, 15:] = 255
    noisy = np.where(truth == 255, blobs(0, (30, 30)), truth)
    assert counted((truth, noisy)).miou == 1


def test_an_open_prediction_has_no_boundary() -> None:
    truth, nothing = np.zeros((9, 9), np.uint8), np.full((9, 9), 255, np.uint8)
    counts = counted((truth, nothing))
    assert counts.predicted.sum() == 0
    assert counts.miou == 0
    assert BoundaryCounts.empty(4).miou == 0
