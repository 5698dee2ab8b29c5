import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import lsq_linear, minimize
from scipy.special import softmax

from stages.pseudolabel.calibration import (
    METHODS,
    Counts,
    Reliability,
    apply,
    count,
    count_folds,
    fit,
    has_own_map,
    held_out,
)
from stages.pseudolabel.output import Calibration

Floats = npt.NDArray[np.float64]


def counts(*pixels: tuple[int, int, int, int], num_classes: int = 2) -> Counts:
    """Counts of one image from (class, level, wrong pixels, right pixels)."""
    found = np.zeros((num_classes, 256, 2), np.int64)
    for class_id, level, wrong, right in pixels:
        found[class_id, level] += (wrong, right)
    return found


def folds(*images: Counts) -> Counts:
    return np.stack(images)


def random_folds(seed: int, num_classes: int = 3, num_folds: int = 5) -> Counts:
    rng = np.random.default_rng(seed)
    found: Counts = rng.integers(0, 9, (num_folds, num_classes, 256, 2))
    return found * (rng.random(found.shape) < 0.2)


def reliability(found: Counts) -> Reliability:
    reliability = Reliability.of(found)
    assert reliability is not None
    return reliability


def outcomes(found: Counts) -> Iterable[tuple[float, bool]]:
    """Confidence and outcome of every pixel."""
    for level, (wrong, right) in enumerate(found.reshape(-1, 256, 2).sum(axis=0).tolist()):
        yield from [(level / 255, False)] * wrong + [(level / 255, True)] * right


def test_pixels_count_where_there_are_a_truth_and_a_label() -> None:
    truth = np.array([[0, 1, 255, 1]], np.uint8)
    mask = np.array([[0, 0, 0, 255]], np.uint8)
    confidence = np.array([[255, 7, 9, 0]], np.uint8)
    found = count(truth, mask, confidence, 2)
    assert np.array_equal(found, counts((0, 255, 0, 1), (0, 7, 1, 0)))


def test_ece_of_a_hand_computed_example() -> None:
    """4 pixels at 0.2 of which 2 are right, 6 at 0.8 of which 3 are: 0.4 * 0.3 + 0.6 * 0.3."""
    found = reliability(counts((0, 51, 2, 2), (1, 204, 3, 3)))
    assert found.ece == pytest.approx(0.3)
    assert found.mean_confidence == pytest.approx(0.4 * 0.2 + 0.6 * 0.8)
    assert (found.share[2], found.share[11]) == (0.4, 0.6)
    assert (found.accuracy[2], found.confidence[11]) == (0.5, pytest.approx(0.8))
    assert np.isnan(found.accuracy[[0, 14]]).all()


def test_gaps_within_a_bin_cancel_as_published() -> None:
    """Levels 35 and 51 share the third bin, (2/15, 3/15]."""
    found = reliability(counts((0, 35, 1, 0), (0, 51, 0, 1)))
    assert found.share[2] == 1
    assert found.ece == pytest.approx(abs(0.5 - 43 / 255))


def test_ece_equals_a_plain_loop_over_pixels() -> None:
    found = random_folds(0)[0]
    pixels = list(outcomes(found))
    expected = 0.0
    for number in range(15):
        low, high = number / 15, (number + 1) / 15
        own = [(c, right) for c, right in pixels if low + 1e-9 < c <= high + 1e-9]
        own += [(c, right) for c, right in pixels if number == 0 and c == 0]
        if own:
            gap = np.mean([right for _, right in own]) - np.mean([c for c, _ in own])
            expected += float(len(own) / len(pixels) * abs(gap))
    assert reliability(found).ece == pytest.approx(expected)


def test_no_pixel_has_no_reliability_and_no_map() -> None:
    nothing = folds(counts(), counts())
    assert Reliability.of(nothing) is None
    for method in METHODS:
        assert fit(nothing, method) is None
        assert held_out(nothing, method) is None


def test_isotonic_maps_are_the_least_squares_of_rising_steps() -> None:
    """Against a general solver: a sum of steps up, none of them negative, over single pixels."""
    found = random_folds(1, num_folds=3)
    maps = fit(found, "isotonic")
    assert maps is not None
    pixels = found.sum(axis=(0, 1))
    (levels,) = np.nonzero(pixels.sum(axis=1))
    each = np.repeat(np.arange(512), pixels.ravel())  # level and outcome of every pixel
    steps = (levels <= each[:, None] // 2).astype(float)
    best = lsq_linear(steps, (each % 2).astype(float), bounds=(0, np.inf))
    assert maps[0, levels] == pytest.approx(255 * best.x.cumsum(), abs=0.51)


def test_isotonic_pools_what_violates_the_order() -> None:
    """1 of 4 right at level 100, 3 of 4 at 50: both get 1/2; linear between 100 and 200."""
    maps = fit(folds(counts((0, 50, 1, 3), (0, 100, 3, 1), (0, 200, 0, 4))), "isotonic")
    assert maps is not None
    assert maps[0, [0, 50, 100, 150, 200, 255]].tolist() == [128, 128, 128, 191, 255, 255]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_is_found_again(temperature: float) -> None:
    """Confidences of logits sharpened by a temperature, right as often as the logits say."""
    num_classes, pixels = 4, 10_000_000
    found = np.zeros((1, num_classes, 256, 2), np.int64)
    expected = np.zeros(256)
    for level in range(70, 250):
        rest = (1 - level / 255) / (num_classes - 1)
        logits = np.log([level / 255, *[rest] * (num_classes - 1)])
        expected[level] = softmax(logits / temperature)[0]
        right = round(pixels * expected[level])
        found[0, 0, level] = (pixels - right, right)
    maps = fit(found, "temperature")
    assert maps is not None
    assert maps[0, 70:250] == pytest.approx(255 * expected[70:250], abs=0.51)


def test_temperature_is_the_likeliest() -> None:
    found = random_folds(2, num_classes=5, num_folds=3)
    maps = fit(found, "temperature")
    assert maps is not None
    pixels = found.sum(axis=(0, 1))
    sure = (np.arange(256) / 255).clip(0.5 / 255, 1 - 0.5 / 255)

    def powered(log_inverse: float) -> Floats:
        winner, others = sure ** math.exp(log_inverse), ((1 - sure) / 4) ** math.exp(log_inverse)
        return np.asarray(winner / (winner + 4 * others))

    def loss(x: Floats) -> float:
        found = powered(float(x[0]))
        return float(-(pixels[:, 1] * np.log(found) + pixels[:, 0] * np.log1p(-found)).sum())

    best = minimize(loss, [0.0], method="Nelder-Mead", options={"xatol": 1e-8})
    assert maps[0] == pytest.approx(255 * powered(best.x[0]), abs=0.51)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("num_classes", [1, 2, 255])
def test_maps_never_turn_more_certain_into_less(method: Calibration, num_classes: int) -> None:
    maps = fit(random_folds(3, num_classes), method)
    assert maps is not None
    assert maps.shape == (num_classes, 256)
    assert (np.diff(maps.astype(int), axis=1) >= 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_labels_all_right_are_certain(method: Calibration) -> None:
    maps = fit(folds(counts((0, 180, 0, 9))), method)
    assert maps is not None
    assert maps[0, 180] == 255


@pytest.mark.parametrize(("method", "level"), [("isotonic", 0), ("temperature", 128)])
def test_labels_all_wrong_count_little(method: Calibration, level: int) -> None:
    """The best of two classes is at least 1/2 at any temperature."""
    maps = fit(folds(counts((0, 180, 9, 0))), method)
    assert maps is not None
    assert abs(int(maps[0, 180]) - level) <= 1


def test_a_class_has_a_map_of_its_own_where_four_folds_and_enough_pixels_have_it() -> None:
    images = [counts((0, 100, 0, 300), (1, 100, 100, 0), (2, 100, 9, 0), num_classes=4)] * 3
    images += [counts((0, 100, 0, 300), (2, 100, 9, 0), num_classes=4)]
    found = folds(*images)
    assert has_own_map(found).tolist() == [True, False, False, False]
    maps = fit(found, "isotonic")
    assert maps is not None
    everything = round(255 * 1200 / (1200 + 300 + 36))
    assert maps[:, 100].tolist() == [255, everything, everything, everything]


def test_calibration_is_not_scored_on_what_it_was_fitted_on() -> None:
    """One image is all right, the other all wrong, and their confidences differ."""
    found = folds(counts((0, 200, 0, 10)), counts((0, 50, 10, 0)))
    maps = fit(found, "isotonic")
    assert maps is not None
    assert reliability(apply(maps, found.sum(axis=0))).ece == 0  # on what it was fitted on
    apart = held_out(found, "isotonic")
    assert apart is not None
    assert reliability(apart).ece == 1


@pytest.mark.parametrize("method", METHODS)
def test_an_image_is_scored_by_the_maps_of_the_others(method: Calibration) -> None:
    found = random_folds(4)
    expected = np.zeros(found.shape[1:], np.int64)
    for number in range(len(found)):
        others = found[[other for other in range(len(found)) if other != number]]
        maps = fit(others, method)
        assert maps is not None
        for class_id in range(3):
            for level in range(256):
                expected[class_id, maps[class_id, level]] += found[number, class_id, level]
    apart = held_out(found, method)
    assert apart is not None
    assert np.array_equal(apart, expected)


def test_one_image_is_too_few_to_be_scored() -> None:
    one = folds(counts((0, 200, 1, 10)))
    assert held_out(one, "isotonic") is None
    assert held_out(folds(one[0], counts()), "isotonic") is None


@pytest.mark.parametrize(
    ("total", "expected"),
    [(1, [1]), (8, [1] * 8), (9, [2, 1, 1, 1, 1, 1, 1, 1]), (24, [3] * 8)],
)
def test_neighbours_share_a_fold(total: int, expected: list[int]) -> None:
    images = [counts((0, number, 0, 1)) for number in range(total)]
    found = count_folds(images, total, 2)
    assert found.sum(axis=(1, 2, 3)).tolist() == expected
    order = [level for fold in found for level in np.nonzero(fold[0, :, 1])[0]]
    assert order == list(range(total))


def test_no_image_is_no_fold() -> None:
    assert count_folds([], 3, 2).sum() == 0
