"""The feature discriminator and both sides of its game."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from pipeline.config.vocabulary import Vocabulary
from stages.models.segmenters.networks.base import SegmentationNetwork
from stages.train.data.batch import TrainBatch
from stages.train.step.discriminator import Discriminator, FeatureDiscriminator, Features
from stages.train.step.label_sources.ema import EmaSource
from stages.train.step.parts import TrainingParts
from stages.train.step.perturbations.base import PerturbationConfig
from stages.train.step.perturbations.supmix import SupMix, SupMixConfig
from stages.train.step.perturbations.unimatch import UniMatch
from stages.train.step.schedule import StepPosition
from stages.train.step.step import training_step

START = StepPosition(step=0, steps=10, steps_an_epoch=5)


@pytest.fixture
def discriminator() -> Discriminator:
    torch.manual_seed(0)
    return Discriminator(FeatureDiscriminator(8), weight=0.01, learning_rate=1e-2)


def features(size_px: int = 8) -> Features:
    torch.manual_seed(1)
    labeled = torch.randn(4, 8, size_px, size_px, requires_grad=True)
    others = torch.randn(6, 8, size_px, size_px) + 1
    return Features(labeled, others.requires_grad_())


@pytest.mark.parametrize("size_px", [1, 2, 7, 33])
def test_maps_of_any_size_get_a_score(size_px: int) -> None:
    scores = FeatureDiscriminator(5)(torch.randn(2, 5, size_px, size_px))
    assert scores.shape[:2] == (2, 1)
    assert scores.numel() > 0


def test_the_segmenters_side_moves_other_features_alone(discriminator: Discriminator) -> None:
    seen = features()
    discriminator.adversarial_loss(seen).backward()  # type: ignore[no-untyped-call]
    assert seen.others.grad is not None
    assert seen.others.grad.any()
    assert seen.labeled.grad is None
    assert all(weight.grad is None for weight in discriminator.network.parameters())
    assert all(weight.requires_grad for weight in discriminator.network.parameters())


def test_the_discriminators_side_leaves_the_segmenter_alone(discriminator: Discriminator) -> None:
    seen = features()
    discriminator.discriminator_loss(seen).backward()  # type: ignore[no-untyped-call]
    assert seen.others.grad is None
    assert seen.labeled.grad is None
    assert all(weight.grad is not None for weight in discriminator.network.parameters())


def test_the_discriminators_side_is_half_of_each_answer_and_the_segmenters_the_wrong_one(
    discriminator: Discriminator,
) -> None:
    """A judge that scores everything 1."""
    for weight in discriminator.network.parameters():
        torch.nn.init.zeros_(weight)
    *_, bias = discriminator.network.parameters()
    torch.nn.init.ones_(bias)
    right, wrong = math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))
    seen = features()
    assert discriminator.discriminator_loss(seen).item() == pytest.approx((right + wrong) / 2)
    assert discriminator.adversarial_loss(seen).item() == pytest.approx(right)


def test_it_learns_to_distinguish_features(discriminator: Discriminator) -> None:
    losses = [discriminator.update([features()]).item() for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]
    scores = discriminator.network(features().others)
    assert scores.mean() < discriminator.network(features().labeled).mean()


def test_micro_batches_are_one_step_on_all_of_them(discriminator: Discriminator) -> None:
    whole = features()
    halves = [
        Features(labeled, others)
        for labeled, others in zip(whole.labeled.chunk(2), whole.others.chunk(2), strict=True)
    ]
    torch.manual_seed(0)
    other = Discriminator(FeatureDiscriminator(8), weight=0.01, learning_rate=1e-2)
    torch.testing.assert_close(discriminator.update(halves), other.update([whole]))
    steps = [state["step"].item() for state in discriminator.optimizer.state.values()]
    assert {*steps} == {1}
    for weight, expected in zip(
        discriminator.network.parameters(), other.network.parameters(), strict=True
    ):
        torch.testing.assert_close(weight, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["supmix", "unimatch"])
def test_a_step_adds_its_weighted_term_and_hands_the_features_on(
    kind: str,
    discriminator: Discriminator,
    parts: Callable[..., TrainingParts],
    pixel_network: Callable[[], SegmentationNetwork],
    random_batch: Callable[..., TrainBatch],
    vocabulary: Vocabulary,
) -> None:
    perturbation = (
        SupMix(SupMixConfig(), vocabulary)
        if kind == "supmix"
        else UniMatch(PerturbationConfig(), vocabulary)
    )
    batch = random_batch(["unlabeled"])
    source = EmaSource(EmaSource.Config(threshold=0.4))
    own = replace(parts(perturbation, pixel_network(), [source]), discriminator=discriminator)
    losses = training_step(own, batch, START)
    assert losses.features is not None
    assert losses.features.labeled.shape == losses.features.others.shape == (4, 8, 8, 8)
    unweighted = losses.terms["supervised"] + losses.terms[source.name]
    share = 2 if perturbation.averages else 1
    expected = unweighted / share + 0.01 * losses.terms["adversarial"]
    torch.testing.assert_close(losses.total, expected)
    losses.total.backward()  # type: ignore[no-untyped-call]
    encoder = own.student.get_submodule("encoder.0").get_parameter("weight")
    assert encoder.grad is not None
    assert encoder.grad.any()
    assert all(weight.grad is None for weight in discriminator.network.parameters())


def test_its_network_halves_the_maps_four_times(discriminator: Discriminator) -> None:
    """4x4 convolutions of stride 2; a map of 33 px gives 17, 9, 5 and 3."""
    assert discriminator.network(torch.zeros(1, 8, 33, 33)).shape == (1, 1, 3, 3)


def test_it_continues_with_its_weights_and_moments(discriminator: Discriminator) -> None:
    discriminator.update([features()])
    resumed = Discriminator(FeatureDiscriminator(8), weight=0.01, learning_rate=1e-2)
    resumed.load_state_dict(copy.deepcopy(discriminator.state_dict()))
    for each in (discriminator, resumed):
        each.update([features()])
    pairs = zip(discriminator.network.parameters(), resumed.network.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
