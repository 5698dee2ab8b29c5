"""Calibration: measures how reliable confidences are, and fits maps that correct them.

A map is a table: the calibrated level of each class and stored level of confidence, 0 to 255. A
level is calibrated if it is the share of right pixels. Everything is computed from counts of pixels
by level, because the store has 256 levels.

Shapes: F folds of images, C classes, L = 256 levels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression, minimize_scalar
from scipy.special import expit

from pipeline.config.vocabulary import IGNORE
from stages.pseudolabel.output import Calibration

METHODS: tuple[Calibration, ...] = get_args(Calibration)

Counts = npt.NDArray[np.int64]
"""(..., C, L, 2): numbers of pixels by class and level; the last axis is wrong, right."""
Maps = npt.NDArray[np.uint8]
"""(C, L): the calibrated level of each class and stored level."""

LEVELS = 256
NUM_BINS = 15
MAX_FOLDS = 8
_OWN_MAP_FOLDS = 4
"""Folds that a class must occur in for its own map: one image says little about others."""
_OWN_MAP_PIXELS = 1000
_HALF_LEVEL = 0.5 / (LEVELS - 1)


@dataclass(frozen=True)
class Reliability:
    """Accuracy of labels by confidence (Guo et al., arXiv 1706.04599).

    Attributes:
        share: (15,) share of the pixels in each bin; bins have equal widths, open below.
        confidence: (15,) mean confidence of a bin's pixels, 0 to 1; NaN in an empty bin.
        accuracy: (15,) share of right pixels in a bin; NaN in an empty bin.
    """

    share: npt.NDArray[np.float64]
    confidence: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]

    @classmethod
    def of(cls, counts: Counts) -> Reliability | None:
        """The reliability of all pixels in (..., L, 2) counts; None if there are no pixels."""
        by_level = counts.reshape(-1, LEVELS, 2).sum(axis=0)
        if not (total := by_level.sum()):
            return None
        levels = np.arange(LEVELS)
        # 255 = 15 * 17: bin k has levels 17 k + 1 to 17 k + 17; bin 0 has level 0 too.
        bins = np.maximum((levels + 16) // 17 - 1, 0)
        pixels = by_level.sum(axis=1)
        in_bin = np.bincount(bins, pixels, NUM_BINS)
        with np.errstate(invalid="ignore"):
            confidence = np.bincount(bins, pixels * levels, NUM_BINS) / in_bin / (LEVELS - 1)
            accuracy = np.bincount(bins, by_level[:, 1], NUM_BINS) / in_bin
        return cls(in_bin / total, confidence, accuracy)

    @property
    def ece(self) -> float:
        """Expected calibration error, 0 to 1 (equation 3): the mean gap, weighted by share."""
        return float(np.nansum(self.share * np.abs(self.accuracy - self.confidence)))

    @property
    def mean_confidence(self) -> float:
        """Mean confidence over all pixels, 0 to 1."""
        return float(np.nansum(self.share * self.confidence))


def count(
    truth: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.uint8],
    confidence: npt.NDArray[np.uint8],
    num_classes: int,
) -> Counts:
    """Counts an image's pixels that have both a true class and a label, as (C, L, 2).

    Args:
        truth: (H, W) class ids, 255 = ignore.
        mask: (H, W) class ids, 255 = ignore.
        confidence: (H, W), 255 = certain.
        num_classes: C.
    """
    known = (truth != IGNORE) & (mask != IGNORE)
    labeled, right = mask[known].astype(np.int64), truth[known] == mask[known]
    cells = (labeled * LEVELS + confidence[known]) * 2 + right
    found = np.bincount(cells, minlength=num_classes * LEVELS * 2)
    return found.reshape(num_classes, LEVELS, 2)


def count_folds(images: Iterable[Counts], total: int, num_classes: int) -> Counts:
    """Adds up counts of images in at most 8 folds, as (F, C, L, 2).

    Neighbouring images share a fold, so that frames of one drive are not evaluated with maps that
    were fitted on the same drive. With 8 images or fewer, each image is a fold.

    Args:
        images: (C, L, 2) counts of each image, in order.
        total: Maximum number of images.
        num_classes: C.
    """
    num_folds = min(MAX_FOLDS, total)
    folds = np.zeros((num_folds, num_classes, LEVELS, 2), np.int64)
    for number, counts in enumerate(images):
        folds[number * num_folds // total] += counts
    return folds


def fit(folds: Counts, method: Calibration) -> Maps | None:
    """Fits maps on (F, C, L, 2) counts; None if there are no pixels.

    A class that occurs often enough has its own map, the others share a map of all classes.
    """
    if not folds.any():
        return None
    num_classes = folds.shape[1]
    fitted = _FITTERS[method]
    everything = fitted(folds.sum(axis=(0, 1)), num_classes)
    own = has_own_map(folds)
    maps = [
        fitted(folds[:, class_id].sum(axis=0), num_classes) if own[class_id] else everything
        for class_id in range(num_classes)
    ]
    return np.stack(maps)


def has_own_map(folds: Counts) -> npt.NDArray[np.bool_]:
    """(C,) whether a class occurs often enough in (F, C, L, 2) counts for its own map."""
    pixels = folds.sum(axis=(2, 3))
    occurs = (pixels > 0).sum(axis=0) >= _OWN_MAP_FOLDS
    return np.asarray(occurs & (pixels.sum(axis=0) >= _OWN_MAP_PIXELS))


def held_out(folds: Counts, method: Calibration) -> Counts | None:
    """Cross-validates: (C, L, 2) counts by calibrated level, with maps fitted on other folds.

    Returns:
        None if fewer than two folds have pixels: one fits the maps and another evaluates them.
    """
    used = [number for number, fold in enumerate(folds) if fold.any()]
    if len(used) < 2:
        return None
    total = np.zeros(folds.shape[1:], np.int64)
    for number in used:
        maps = fit(np.delete(folds, number, axis=0), method)
        assert maps is not None
        total += apply(maps, folds[number])
    return total


def apply(maps: Maps, counts: Counts) -> Counts:
    """Moves (C, L, 2) counts to their calibrated levels."""
    found = np.zeros_like(counts)
    for own, before, after in zip(maps, counts, found, strict=True):
        np.add.at(after, own, before)
    return found


def _fit_isotonic(counts: Counts, _num_classes: int) -> Maps:
    """Isotonic regression of accuracy on level, weighted by pixels, linear between levels.

    Zadrozny and Elkan, KDD 2002; pool adjacent violators.
    """
    pixels = counts.sum(axis=1)
    (levels,) = np.nonzero(pixels)
    accuracy = counts[levels, 1] / pixels[levels]
    fitted = isotonic_regression(accuracy, weights=pixels[levels]).x
    return _as_levels(np.interp(np.arange(LEVELS), levels, fitted))


def _fit_temperature(counts: Counts, num_classes: int) -> Maps:
    """The temperature with the highest likelihood (arXiv 1706.04599, section 4.2).

    The store has only the probability of the best class; the others are assumed to have equal
    shares of the rest.
    """
    others = max(num_classes, 2) - 1
    levels = np.arange(LEVELS) / (LEVELS - 1)
    sure = levels.clip(_HALF_LEVEL, 1 - _HALF_LEVEL)
    logits = np.log(sure * others / (1 - sure))  # of the best class, relative to the others

    def log_odds(inverse: float) -> npt.NDArray[np.float64]:
        return np.asarray(inverse * logits - np.log(others))

    def loss(inverse: float) -> float:
        odds = log_odds(inverse)
        costs = np.stack([np.logaddexp(0, odds), np.logaddexp(0, -odds)], axis=1)
        return float((counts * costs).sum() / counts.sum())

    # Convex in the inverse temperature: logistic regression with one weight and no bias.
    best = minimize_scalar(loss, bounds=(0.01, 100), method="bounded", options={"xatol": 1e-6})
    return _as_levels(expit(log_odds(best.x)))


def _as_levels(confidence: npt.NDArray[np.float64]) -> Maps:
    return np.rint(confidence * (LEVELS - 1)).astype(np.uint8)


_FITTERS: dict[Calibration, Callable[[Counts, int], Maps]] = {
    "temperature": _fit_temperature,
    "isotonic": _fit_isotonic,
}
