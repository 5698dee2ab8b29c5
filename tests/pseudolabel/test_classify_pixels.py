import pytest
import torch
from torch import Tensor

from stages.pseudolabel.pixels.classify_pixels import classify_pixels


def row(*columns: tuple[float, ...]) -> Tensor:
    """(C, 1, W) probabilities, one column per pixel."""
    return torch.tensor(columns).T[:, None]


@pytest.mark.parametrize(
    ("cosines", "confidence", "label"), [((0.30, 0.25), 0.9933, 1), ((0.30, 0.29), 0.7311, 255)]
)
def test_clips_guidance_is_kept_where_it_is_sure(
    cosines: tuple[float, float], confidence: float, label: int
) -> None:
    """As in SemiVL (arXiv 2311.16241): softmax(100 cos), ignored below 0.9."""
    probabilities = (100 * row(cosines)).softmax(0)
    assert float(probabilities.max()) == pytest.approx(confidence, abs=1e-4)
    mask, kept = classify_pixels(probabilities, torch.tensor([1, 2]), 255, threshold=0.9)
    assert mask.tolist() == [[label]]
    assert kept.item() == pytest.approx(confidence if label == 1 else 0, abs=1e-4)


def test_where_nothing_is_seen_there_is_background() -> None:
    probabilities = row((0.05, 0.06), (0.2, 0.3), (0.1, 0.0))
    values = torch.tensor([7, 9])
    mask, confidence = classify_pixels(probabilities, values, 0, prob_threshold=0.1)
    assert mask.tolist() == [[0, 9, 7]]
    torch.testing.assert_close(confidence, torch.tensor([[0.06, 0.3, 0.1]]))
    mask, confidence = classify_pixels(probabilities, values, 255, prob_threshold=0.1)
    assert mask.tolist() == [[255, 9, 7]]
    torch.testing.assert_close(confidence, torch.tensor([[0.0, 0.3, 0.1]]))


def test_between_the_thresholds_nobody_knows() -> None:
    probabilities = row((0.05, 0.06), (0.2, 0.3), (0.6, 0.0))
    mask, _ = classify_pixels(
        probabilities, torch.tensor([7, 9]), 0, threshold=0.5, prob_threshold=0.1
    )
    assert mask.tolist() == [[0, 255, 7]]


def test_classes_of_little_area_give_way_to_the_next_best() -> None:
    """SCLIP keeps channels that win more than a share of the pixels without background."""
    # Background wins 10 pixels, class 1 nine, class 2 one, which is 0.1 of the ten.
    background, one, two = (0.8, 0.1, 0.1), (0.1, 0.8, 0.1), (0.2, 0.3, 0.5)
    probabilities = row(*[background] * 10, *[one] * 9, two)
    values = torch.tensor([0, 1, 2])
    before = classify_pixels(probabilities, values, 0)[0]
    assert before.tolist() == [[0] * 10 + [1] * 9 + [2]]
    mask, confidence = classify_pixels(probabilities, values, 0, area_threshold=0.1)
    assert mask.tolist() == [[0] * 10 + [1] * 10]
    assert confidence[0, -1].item() == pytest.approx(0.3)
    assert torch.equal(classify_pixels(probabilities, values, 0, area_threshold=0.09)[0], before)


def test_the_background_is_never_too_small() -> None:
    probabilities = row((0.8, 0.2), *[(0.2, 0.8)] * 30)
    mask, _ = classify_pixels(probabilities, torch.tensor([0, 1]), 0, area_threshold=0.5)
    assert mask.tolist() == [[0] + [1] * 30]


def test_where_every_class_is_too_small_there_is_background() -> None:
    probabilities = torch.eye(4)[:, None]
    values = torch.tensor([1, 2, 3, 4])
    for background in (0, 255):
        mask, confidence = classify_pixels(probabilities, values, background, area_threshold=0.25)
        assert (mask == background).all()
        assert not confidence.any()


def test_a_confidence_is_never_above_1() -> None:
    """A softmax in float32 may be a bit more."""
    _, confidence = classify_pixels(row((1.0000002, 0.0)), torch.tensor([1, 2]), 255)
    assert confidence.item() == 1
