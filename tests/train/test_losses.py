import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from stages.labels.pseudo_labels import PseudoLabels
from stages.train.step.confidence_weights import Mode, weigh
from stages.train.step.losses import pseudo_label_loss
from stages.train.step.supervised_losses.cross_entropy import CrossEntropyConfig, CrossEntropyLoss
from stages.train.step.supervised_losses.ohem import OhemConfig, OhemLoss

supervised_loss = CrossEntropyLoss(CrossEntropyConfig()).measure


def weighted(logits: Tensor, labels: PseudoLabels, valid: Tensor) -> Tensor:
    return pseudo_label_loss(logits, labels.mask, labels.confidence * valid, valid)


def logits_with_loss(loss: Tensor) -> Tensor:
    """Two classes; the cross-entropy of class 0 is the one given."""
    return torch.stack([torch.zeros_like(loss), torch.log(torch.exp(loss) - 1)], dim=1)


def everywhere_class_0(confidence: Tensor) -> PseudoLabels:
    return PseudoLabels(torch.zeros(confidence.shape, dtype=torch.int64), confidence)


LOSS = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]])
CONFIDENCE = torch.tensor([[[0.96, 0.5]], [[0.99, 0.97]]])
VALID = torch.tensor([[[True, True]], [[True, False]]])


def test_pseudo_label_loss_counts_confident_valid_pixels_over_valid_ones() -> None:
    loss = weighted(
        logits_with_loss(LOSS),
        everywhere_class_0(CONFIDENCE).confident(0.95),
        VALID,
    )
    assert loss.item() == pytest.approx(4 / 3)


def test_pseudo_label_loss_weighs_by_confidence() -> None:
    loss = weighted(
        logits_with_loss(LOSS),
        everywhere_class_0(CONFIDENCE),
        VALID,
    )
    assert loss.item() == pytest.approx((0.96 * 1 + 0.5 * 2 + 0.99 * 3) / 3)


def test_the_threshold_itself_is_confident_enough() -> None:
    logits = logits_with_loss(torch.tensor([[[1.0]]]))
    labels = everywhere_class_0(torch.tensor([[[0.5]]]))
    valid = torch.ones(1, 1, 1, dtype=torch.bool)
    loss = weighted(logits, labels.confident(0.5), valid)
    assert loss.item() == pytest.approx(1)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("pixelwise", 4 / 3),
        ("pixelratio", 17 / 6),
        ("pixelavg", 5.7333),
        # Two of three valid pixels are confident, and the three cost 6.
        ("batchratio", 2 / 3 * 6 / 3),
    ],
)
def test_each_mode_weighs_as_published(mode: Mode, expected: float) -> None:
    weights = weigh(mode, CONFIDENCE, 0.95, VALID)
    target = torch.zeros(2, 1, 2, dtype=torch.int64)
    loss = pseudo_label_loss(logits_with_loss(LOSS), target, weights, VALID)
    assert loss.item() == pytest.approx(expected, abs=1e-4)


MEANS = torch.tensor([0.95, 0.9, 0.9, 0.85, 0.8, 0.7, 0.55, 0.4])


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (1, MEANS),
        (4, torch.tensor([3.6, 2.45]).repeat_interleave(4)),
        (None, torch.full((8,), 6.05)),
    ],
)
def test_each_group_of_images_has_the_weight_of_its_own_mean_confidences(
    images: int | None, expected: Tensor
) -> None:
    """SemiVL trained on Cityscapes with an image a GPU: each image has its own weight."""
    confidence = MEANS[:, None, None].expand(8, 3, 5)
    weights = weigh("pixelavg", confidence, 0.95, torch.ones(8, 3, 5, dtype=torch.bool), images)
    torch.testing.assert_close(weights, expected[:, None, None].expand(8, 3, 5))


def test_a_group_of_padding_alone_has_no_weight() -> None:
    valid = torch.tensor([True, False])[:, None, None].expand(2, 3, 5)
    weights = weigh("pixelavg", torch.full((2, 3, 5), 0.5), 0.95, valid, 1)
    assert weights[:, 0, 0].tolist() == [0.25, 0]  # half of the batch's valid pixels a group


@pytest.mark.parametrize("images", [1, 2, 3, 6])
def test_the_loss_of_groups_is_the_mean_of_the_losses_of_so_many_processes(images: int) -> None:
    """The code of SemiVL and PrevMatch, run on each group as on a GPU, with padding of any size."""
    draw = torch.Generator().manual_seed(images)
    confidence, losses = (torch.rand(6, 4, 4, generator=draw) for _ in range(2))
    valid = torch.rand(6, 4, 4, generator=draw) < 0.7
    target = torch.zeros(6, 4, 4, dtype=torch.int64)
    weights = weigh("pixelavg", confidence, 0.95, valid, images)
    loss = pseudo_label_loss(logits_with_loss(losses), target, weights, valid)
    official = []
    for first in range(0, 6, images):
        rows = slice(first, first + images)
        own = valid[rows].float()
        means = (confidence[rows] * own).sum(dim=(1, 2)) / own.sum(dim=(1, 2))
        summed = sum((losses[rows].sum() * mean for mean in means), torch.zeros(()))
        official.append(summed / own.sum())
    assert loss.item() == pytest.approx(torch.stack(official).mean().item(), rel=1e-5)


@pytest.mark.parametrize(("min_kept", "kept"), [(2, 2), (3, 3), (5, 4)])
def test_hard_pixels_count_and_at_least_so_many(min_kept: int, kept: int) -> None:
    probabilities = torch.tensor([0.1, 0.5, 0.8, 0.9])
    losses = -probabilities.log()
    ohem = OhemLoss(OhemConfig(threshold=0.7, min_kept=min_kept, images=1))
    mask = torch.zeros(1, 1, 5, dtype=torch.int64)
    mask[..., -1] = 255
    logits = logits_with_loss(torch.cat([losses, torch.ones(1)]).view(1, 1, 5))
    assert ohem.measure(logits, mask).item() == pytest.approx(losses[:kept].mean().item())


@pytest.mark.parametrize("pieces", [1, 2, 4])
def test_micro_batches_keep_their_share_of_hard_pixels(pieces: int) -> None:
    """Of four crops with the same pixels 3 of 16 are kept each, however they are divided."""
    losses = torch.linspace(0.01, 0.2, 16).expand(4, 1, 16)  # all of them easy
    ohem = OhemLoss(OhemConfig(threshold=0.7, min_kept=6, images=2))
    mask = torch.zeros(4, 1, 16, dtype=torch.int64)
    found = [
        ohem.measure(logits_with_loss(own), target).item()
        for own, target in zip(losses.chunk(pieces), mask.chunk(pieces), strict=True)
    ]
    assert found == pytest.approx([losses[0, 0, -3:].mean().item()] * pieces)


def test_smoothed_targets_cost_what_torch_says() -> None:
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 4, 4, dtype=torch.int64)
    every = torch.ones(2, 4, 4)
    found = pseudo_label_loss(logits, mask, every, every.bool(), smoothing=0.1)
    torch.testing.assert_close(found, cross_entropy(logits, mask, label_smoothing=0.1))


def test_ignored_labels_count_in_the_denominator_only() -> None:
    labels = PseudoLabels(torch.tensor([[[0, 255]]]), torch.ones(1, 1, 2))
    valid = torch.ones(1, 1, 2, dtype=torch.bool)
    logits = logits_with_loss(torch.tensor([[[1.0, 8.0]]]))
    loss = weighted(logits, labels, valid)
    assert loss.item() == pytest.approx(1 / 2)


@pytest.mark.parametrize(
    ("box", "mask", "confidence", "expected"),
    [
        ([False, True], [5, 7], [1.0, 0.5], "half the loss of pixel 0"),
        ([False, False], [5, 255], [1.0, 0.0], "the loss of pixel 0"),
    ],
)
def test_stored_labels_of_web_images_with_unsure_pixels_pasted_in(
    box: list[bool], mask: list[int], confidence: list[float], expected: str
) -> None:
    # SemiOVS: the second pixel of the web image is padding; the pasted labels are not sure enough.
    paste = torch.tensor([[box]])
    stored = PseudoLabels(torch.tensor([[[5, 255]]]), torch.tensor([[[1.0, 0.0]]]))
    online = PseudoLabels(torch.tensor([[[7, 7]]]), torch.tensor([[[0.5, 0.5]]]))
    labels = stored.pasted(online, paste)
    assert labels.mask.tolist() == [[mask]]
    assert labels.confidence.tolist() == [[confidence]]

    valid = torch.where(paste, torch.tensor([[[True, True]]]), torch.tensor([[[True, False]]]))
    logits = torch.randn(1, 8, 1, 2, generator=torch.Generator().manual_seed(0))
    first = cross_entropy(logits[..., 0], torch.tensor([[5]])).item()
    loss = weighted(logits, labels.confident(0.95), valid)
    assert loss.item() == pytest.approx(first / 2 if expected.startswith("half") else first)


def test_supervised_loss_is_the_mean_over_pixels_with_a_class() -> None:
    mask = torch.tensor([[[0, 255]], [[0, 0]]])
    assert supervised_loss(logits_with_loss(LOSS), mask).item() == pytest.approx(8 / 3)


def test_a_batch_where_nothing_counts_has_loss_and_gradient_zero() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    nothing = torch.full((1, 2, 2), 255)
    labels = PseudoLabels(nothing, torch.zeros(1, 2, 2))
    padding = torch.zeros(1, 2, 2, dtype=torch.bool)
    unlabeled = weighted(logits, labels, padding)
    loss = supervised_loss(logits, nothing) + unlabeled
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_unsure_labels_leave_the_gradient_of_the_labeled_images_alone() -> None:
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 4, kernel_size=1)
    weights = list(network.parameters())
    images, unlabeled = torch.randn(2, 3, 5, 5), torch.randn(2, 3, 5, 5)
    mask = torch.randint(0, 4, (2, 5, 5))
    valid = torch.ones(2, 5, 5, dtype=torch.bool)

    alone = torch.autograd.grad(supervised_loss(network(images), mask), weights)
    unsure = PseudoLabels(mask, torch.full((2, 5, 5), 0.94))
    both = torch.autograd.grad(
        supervised_loss(network(images), mask)
        + weighted(network(unlabeled), unsure.confident(0.95), valid),
        weights,
    )
    for expected, found in zip(alone, both, strict=True):
        assert torch.equal(expected, found)


def test_the_weak_view_that_gave_the_labels_gets_no_gradient() -> None:
    torch.manual_seed(0)
    weak = torch.randn(1, 3, 4, 4, requires_grad=True)
    strong = torch.randn(1, 3, 4, 4, requires_grad=True)
    confidence, mask = weak.softmax(dim=1).max(dim=1)
    valid = torch.ones(1, 4, 4, dtype=torch.bool)
    loss = weighted(strong, PseudoLabels(mask, confidence), valid)
    loss.backward()  # type: ignore[no-untyped-call]
    assert weak.grad is None
    assert strong.grad is not None
    assert math.isfinite(loss.item())
    assert strong.grad.abs().sum() > 0
