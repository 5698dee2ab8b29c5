"""The report card: scores of a labeler on the labeled images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config.config import Config
from pipeline.records.rows import CardRow
from stages.pseudolabel.output import STORED, labels_with_truth


def report_card_rows(config: Config, labeler: str, images: pa.Table) -> list[CardRow]:
    """Scores a labeler: a row for the stored confidence, then a row for each calibration.

    Calibrations are scored by cross-validation; the maps in the rows are fitted on all images.

    Args:
        config: The run's config.
        labeler: The labeler's name in the config.
        images: Rows of the labeled images.

    Raises:
        DataError: A label file can no longer be read.
    """
    from stages.labels.confusion import Confusion
    from stages.pseudolabel import calibration

    num_classes = config.vocabulary.num_classes
    confusion, num_images = Confusion.empty(num_classes), 0

    def counted() -> Iterator[calibration.Counts]:
        nonlocal num_images
        for label in labels_with_truth(config, labeler, images):
            num_images += 1
            confusion.add(label.truth, label.mask)
            yield calibration.count(label.truth, label.mask, label.confidence, num_classes)

    folds = calibration.count_folds(counted(), images.num_rows, num_classes)
    scores: CardRow = {
        "labeler": labeler,
        "images": num_images,
        "miou": confusion.miou,
        "pixel_accuracy": confusion.pixel_accuracy,
        "coverage": confusion.coverage,
        "class_iou": [
            float(iou) if occurs else None
            for iou, occurs in zip(confusion.iou, confusion.occurs, strict=True)
        ],
    }
    stored: CardRow = {**scores, "calibration": STORED, **_reliability(folds.sum(axis=0))}
    rows = [stored]
    for method in calibration.METHODS:
        row: CardRow = {**scores, "calibration": method}
        if (validated := calibration.held_out(folds, method)) is not None:
            maps = calibration.fit(folds, method)
            assert maps is not None
            (own,) = np.nonzero(calibration.has_own_map(folds))
            row |= _reliability(validated)
            row |= {"maps": maps.tolist(), "own_map_class_ids": own.tolist()}
        rows.append(row)
    return rows


def _reliability(counts: npt.NDArray[np.int64]) -> CardRow:
    from stages.pseudolabel.calibration import Reliability

    if (found := Reliability.of(counts)) is None:
        return {}
    return {
        "mean_confidence": found.mean_confidence,
        "ece": found.ece,
        "bin_share": found.share.tolist(),
        "bin_confidence": _nullable(found.confidence),
        "bin_accuracy": _nullable(found.accuracy),
    }


def _nullable(values: npt.NDArray[np.float64]) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]
