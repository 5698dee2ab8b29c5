import numpy as np
import numpy.typing as npt
import pytest
import torch
from torchmetrics import Metric
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassJaccardIndex,
)

from stages.labels.confusion import Confusion

Bytes = npt.NDArray[np.uint8]
NUM_CLASSES = 3


def counted(*pairs: tuple[object, object], num_classes: int = NUM_CLASSES) -> Confusion:
    confusion = Confusion.empty(num_classes)
    for truth, predicted in pairs:
        confusion.add(np.array(truth, np.uint8), np.array(predicted, np.uint8))
    return confusion


def random_masks(seed: int) -> tuple[Bytes, Bytes]:
    """Truth and prediction, both with open pixels."""
    rng = np.random.default_rng(seed)
    values = np.array([*range(NUM_CLASSES), 255], np.uint8)
    truth, predicted = rng.choice(values, (2, 13, 17))
    return truth, predicted


def test_absent_classes_count_zero_in_the_mean() -> None:
    confusion = counted(([[0, 0]], [[0, 0]]))
    assert confusion.iou.tolist() == [1, 0, 0]
    assert confusion.miou == pytest.approx(1 / 3)
    assert confusion.pixel_accuracy == 1


def test_counts_equal_those_of_a_plain_loop() -> None:
    pairs = [random_masks(seed) for seed in range(3)]
    confusion = counted(*pairs)
    union, intersection = np.zeros(NUM_CLASSES), np.zeros(NUM_CLASSES)
    right = known = 0
    for truth, predicted in pairs:
        for true, guess in zip(truth.flat, predicted.flat, strict=True):
            if true == 255:
                continue
            known += 1
            right += true == guess
            intersection[true] += true == guess
            for class_id in {int(true), int(guess)} - {255}:
                union[class_id] += 1
    assert confusion.iou == pytest.approx(intersection / union)
    assert confusion.miou == pytest.approx((intersection / union).mean())
    assert confusion.pixel_accuracy == pytest.approx(right / known)
    assert confusion.counts.sum() == known


def test_an_open_prediction_is_wrong_where_the_truth_is_known() -> None:
    confusion = counted(([[0, 0, 1, 255]], [[0, 255, 255, 255]]))
    assert confusion.iou.tolist() == [0.5, 0, 0]
    assert confusion.pixel_accuracy == pytest.approx(1 / 3)


def test_where_the_truth_is_open_no_prediction_counts() -> None:
    confusion = counted(([[0, 255, 255]], [[0, 1, 2]]))
    assert confusion.iou.tolist() == [1, 0, 0]


def test_the_order_and_grouping_of_images_do_not_matter() -> None:
    first, second = random_masks(0), random_masks(1)
    truth, predicted = (np.concatenate(pair) for pair in zip(first, second, strict=True))
    separate, swapped = counted(first, second), counted(second, first)
    whole = counted((truth, predicted))
    assert np.array_equal(separate.counts, swapped.counts)
    assert np.array_equal(separate.counts, whole.counts)


def test_the_largest_vocabulary_fits() -> None:
    """255 classes: the last id is 254."""
    confusion = counted(([[254, 254]], [[254, 255]]), num_classes=255)
    assert confusion.iou[254] == 0.5


def test_an_empty_matrix_has_no_score() -> None:
    confusion = Confusion.empty(NUM_CLASSES)
    scores = confusion.miou, confusion.nan_miou, confusion.pixel_accuracy, confusion.coverage
    assert scores == (None, None, None, None)


@pytest.mark.parametrize(
    ("truth", "predicted", "expected"),
    [
        ([[0, 0]], [[0, 0]], 1.0),
        ([[0, 0]], [[0, 1]], 0.25),  # a class that is only predicted occurs too
        ([[0, 0]], [[0, 255]], 0.5),
        ([[0, 255]], [[0, 1]], 1.0),
    ],
)
def test_the_usual_mean_is_over_classes_that_occur(
    truth: object, predicted: object, expected: float
) -> None:
    assert counted((truth, predicted)).nan_miou == expected


@pytest.mark.parametrize("num_classes", [3, 7])
def test_scores_equal_those_of_torchmetrics(num_classes: int) -> None:
    """On random masks; of 7 classes 3 occur in the truth and 4 in the prediction."""
    rng = np.random.default_rng(num_classes)
    truth = rng.choice(np.array([0, 1, 2, 255], np.uint8), (4, 19, 23))
    predicted = rng.choice(np.arange(min(num_classes, 4), dtype=np.uint8), (4, 19, 23))
    confusion = counted(*zip(truth, predicted, strict=True), num_classes=num_classes)
    target, guess = (torch.from_numpy(mask.astype(np.int64)) for mask in (truth, predicted))

    def theirs(metric: type[Metric], **keys: object) -> npt.NDArray[np.float64]:
        measure = metric(num_classes=num_classes, ignore_index=255, **keys)
        for each in zip(guess, target, strict=True):
            measure.update(*each)
        return np.asarray(measure.compute().numpy(), np.float64)

    matrix = theirs(MulticlassConfusionMatrix)
    assert np.array_equal(confusion.counts[:, :-1], matrix)
    per_class = theirs(MulticlassJaccardIndex, average=None)
    assert confusion.iou == pytest.approx(per_class)
    assert confusion.miou == pytest.approx(per_class.mean())
    assert confusion.nan_miou == pytest.approx(theirs(MulticlassJaccardIndex, average="macro"))
    assert confusion.pixel_accuracy == pytest.approx(theirs(MulticlassAccuracy, average="micro"))


def test_scores_have_the_names_of_the_metrics_manifest() -> None:
    scores = counted(([[0, 1]], [[0, 2]])).scores(("sky", "car", "cat"))
    expected = {"miou": 1 / 3, "nan_miou": 1 / 3, "pixel_accuracy": 0.5}
    assert scores == pytest.approx({**expected, "iou/sky": 1, "iou/car": 0, "iou/cat": 0})


def test_a_single_pixel_is_enough_for_a_score() -> None:
    confusion = Confusion.empty(2)
    pixel = np.array([[1]], np.uint8)
    confusion.add(pixel, pixel)
    assert confusion.pixel_accuracy == 1
    assert confusion.iou.tolist() == [0, 1]
