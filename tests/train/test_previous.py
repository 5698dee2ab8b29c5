"""PrevMatch's ensemble of earlier selves."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from stages.models.segmenters.networks.base import SegmentationNetwork
from stages.train.data.batch import TrainBatch
from stages.train.step.label_sources.previous import PreviousConfig, PreviousSource
from stages.train.step.weak_predictions import WeakPredictions

BuildNetwork = Callable[[], SegmentationNetwork]
RandomBatch = Callable[..., TrainBatch]


def says(network: SegmentationNetwork, *logits: float) -> SegmentationNetwork:
    """Makes a network give these logits everywhere."""
    classifier = network.get_submodule("classifier")
    nn.init.zeros_(classifier.get_parameter("weight"))
    with torch.no_grad():
        classifier.get_parameter("bias").copy_(torch.tensor(logits))
    return network


def confidence(source: PreviousSource, batch: TrainBatch) -> float:
    nobody = nn.Identity()
    weak = WeakPredictions(nobody, nobody, batch)  # type: ignore[arg-type]
    return source.label(batch, "unlabeled", weak).confidence[0, 0, 0].item()


class Column(SegmentationNetwork):
    """Is for the first class in one column of pixels, and for none elsewhere."""

    def __init__(self, column: int) -> None:
        super().__init__()
        self.encoder = nn.Identity()
        self.column = column

    def encode(self, images: Tensor) -> list[Tensor]:
        return [images]

    def fuse(self, features: list[Tensor]) -> Tensor:
        return features[0]

    def classify(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        logits = torch.zeros(len(maps), 3, *size)
        logits[:, 0, :, self.column] = 4.0
        return logits


def shares(batch: TrainBatch, selves: int) -> Tensor:
    """What each of so many selves has of the sum of logits, (1200 steps, selves).

    Their columns tell: of logits [4 s, 0, 0] the first has the probability e^4s / (e^4s + 2).
    """
    source = PreviousSource(PreviousConfig(members=3))
    for column in range(selves):
        source.validated(Column(column), is_best=True, epoch=1)
    nobody = nn.Identity()
    weak = WeakPredictions(nobody, nobody, batch)  # type: ignore[arg-type]
    steps = [replace(batch, random=replace(batch.random, step=step)) for step in range(1200)]
    labels = [source.label(each, "unlabeled", weak).confidence[0, 0, :selves] for each in steps]
    found = torch.stack(labels)
    return (2 * found / (1 - found)).log() / 4


@pytest.mark.parametrize(
    ("selves", "chances"), [(5, [1 / 3, 1 / 3, 1 / 3]), (2, [1 / 3, 2 / 3]), (1, [1])]
)
def test_one_to_three_selves_are_asked_or_as_many_as_there_are(
    selves: int, chances: list[float], random_batch: RandomBatch
) -> None:
    found = shares(random_batch(["unlabeled"]), selves)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(1200), atol=1e-5, rtol=0)
    counts = (found > 1e-5).sum(dim=1).bincount() / 1200
    assert counts.tolist() == pytest.approx([0, *chances], abs=0.04)


def test_all_choices_of_selves_come_up_and_each_self_as_often(random_batch: RandomBatch) -> None:
    asked = shares(random_batch(["unlabeled"]), 5) > 1e-5
    assert len({tuple(row) for row in asked.tolist()}) == 5 + 10 + 10
    assert asked.float().mean(dim=0).tolist() == pytest.approx([2 / 5] * 5, abs=0.04)


def test_shares_are_those_of_a_flat_dirichlet_distribution(random_batch: RandomBatch) -> None:
    """Of k shares each is Beta(1, k - 1): at most x with probability 1 - (1 - x)^(k - 1)."""
    found = shares(random_batch(["unlabeled"]), 5)
    counts = (found > 1e-5).sum(dim=1)
    for count in (2, 3):
        own = found[counts == count]
        own = own[own > 1e-5]
        for x in (0.1, 0.3, 0.5, 0.7, 0.9):
            chance = 1 - (1 - x) ** (count - 1)
            assert (own <= x).float().mean().item() == pytest.approx(chance, abs=0.05)


def test_it_has_nothing_to_say_before_the_first_validation(pixel_network: BuildNetwork) -> None:
    source = PreviousSource(PreviousConfig())
    assert not source.is_ready
    source.validated(pixel_network(), is_best=False, epoch=1)
    assert not source.is_ready
    source.validated(pixel_network(), is_best=True, epoch=2)
    assert source.is_ready


def test_copies_are_kept_from_an_epoch_on_or_after_every_validation(
    pixel_network: BuildNetwork,
) -> None:
    late = PreviousSource(PreviousConfig(first_epoch=3))
    late.validated(pixel_network(), is_best=True, epoch=2)
    assert not late.is_ready
    every = PreviousSource(PreviousConfig(after="every"))
    every.validated(pixel_network(), is_best=False, epoch=1)
    assert every.is_ready


def test_equal_selves_say_what_one_says(
    pixel_network: BuildNetwork, random_batch: RandomBatch
) -> None:
    source = PreviousSource(PreviousConfig())
    for epoch in range(3):
        source.validated(says(pixel_network(), 1.0, 0.0, 0.0), is_best=True, epoch=epoch)
    one = torch.tensor([1.0, 0.0, 0.0]).softmax(0)[0].item()
    for step in range(5):
        found = confidence(source, random_batch(["unlabeled"], step=step))
        assert found == pytest.approx(one)


def test_logits_are_summed_and_not_probabilities(
    pixel_network: BuildNetwork, random_batch: RandomBatch
) -> None:
    """Of weights a and 1 - a, logits of 0 and 4 give 4 (1 - a); with halves softmax([2, 0])."""
    source = PreviousSource(PreviousConfig(members=2))
    for value in (0.0, 4.0):
        network = says(pixel_network(), value, 0.0, -1e4)
        source.validated(network, is_best=True, epoch=1)
    seen = set()
    for step in range(200):
        batch = random_batch(["unlabeled"], step=step)
        chosen, shares = source._draw(batch.random.of_step(f"members of {source.name}"))
        expected = torch.tensor([0.0, 4.0])[chosen] @ shares.float()
        found = confidence(source, batch)
        assert found == pytest.approx(torch.sigmoid(expected).item(), abs=1e-5)
        assert shares.sum().item() == pytest.approx(1)
        seen.add(len(chosen))
    assert seen == {1, 2}
    assert torch.tensor([2.0, 0.0]).softmax(0)[0].item() == pytest.approx(0.8808, abs=1e-4)


def test_the_oldest_self_makes_room(pixel_network: BuildNetwork, random_batch: RandomBatch) -> None:
    source = PreviousSource(PreviousConfig(keep=1))
    for value in (9.0, 0.0):
        source.validated(says(pixel_network(), value, 0.0, 0.0), is_best=True, epoch=1)
    assert confidence(source, random_batch(["unlabeled"])) == pytest.approx(1 / 3)


def test_a_kept_self_no_longer_learns(
    pixel_network: BuildNetwork, random_batch: RandomBatch
) -> None:
    source = PreviousSource(PreviousConfig())
    network = says(pixel_network(), 0.0, 0.0, 0.0)
    source.validated(network, is_best=True, epoch=1)
    says(network, 9.0, 0.0, 0.0)
    assert confidence(source, random_batch(["unlabeled"])) == pytest.approx(1 / 3)


def test_its_state_brings_all_selves_back(
    pixel_network: BuildNetwork, random_batch: RandomBatch
) -> None:
    source, other = PreviousSource(PreviousConfig()), PreviousSource(PreviousConfig())
    for value in (0.0, 1.0, 2.0):
        source.validated(says(pixel_network(), value, 0.0, 0.0), is_best=True, epoch=1)
    other.restore(source.state(), pixel_network())
    for step in range(6):
        batch = random_batch(["unlabeled"], step=step)
        assert confidence(other, batch) == confidence(source, batch)
