"""PrevMatch's ensemble of earlier selves."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from stages.segmenters.networks.base import SegmentationNetwork
from stages.train.batch import TrainBatch
from stages.train.label_sources.previous import PreviousConfig, PreviousSource
from stages.train.sight import Sight

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
    sight = Sight(nobody, nobody, batch)  # type: ignore[arg-type]
    return source.label(batch, "unlabeled", sight).confidence[0, 0, 0].item()


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
        chosen, shares = source._draw(batch.draws.of_step(f"members of {source.name}"))
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
