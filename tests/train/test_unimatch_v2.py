"""UniMatch V2: complementary dropout, and boxes from the reversed batch."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pipeline.config.vocabulary import Vocabulary
from stages.labels.pseudo_labels import PseudoLabels
from stages.models.segmenters.networks.base import SegmentationNetwork, frozen_copy
from stages.train.data.batch import TrainBatch
from stages.train.data.random_numbers import StepRandom
from stages.train.step.label_sources.ema import EmaSource
from stages.train.step.parts import TrainingParts
from stages.train.step.perturbations.base import PerturbationConfig
from stages.train.step.perturbations.unimatch_v2 import UniMatchV2, complementary_masks
from stages.train.step.schedule import StepPosition
from stages.train.step.step import training_step
from stages.train.step.strong_views import boxes

START = StepPosition(step=0, steps=10, steps_an_epoch=5)


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_masks_of_two_views_complement_each_other_but_for_half_of_the_images(count: int) -> None:
    masks = complementary_masks(64, StepRandom(0, 3, range(count), count))
    first, second = masks.chunk(2)
    assert torch.equal((first + second) / 2, torch.ones(count, 64))
    is_whole = (first == 1).all(dim=1)
    assert int(is_whole.sum()) == count // 2
    assert set(first[~is_whole].flatten().tolist()) == {0.0, 2.0}


def test_each_process_has_its_part_of_the_masks() -> None:
    whole = complementary_masks(16, StepRandom(0, 3, range(6), 6)).view(2, 6, 16)
    parts = [complementary_masks(16, StepRandom(0, 3, own, 6)) for own in (range(4), range(4, 6))]
    joined = torch.cat([part.view(2, -1, 16) for part in parts], dim=1)
    assert torch.equal(joined, whole)


def test_all_levels_of_a_width_have_the_same_mask() -> None:
    draws = StepRandom(0, 3, range(4), 4)
    assert torch.equal(complementary_masks(32, draws), complementary_masks(32, draws))
    next_step = StepRandom(0, 4, range(4), 4)
    assert not torch.equal(complementary_masks(32, draws), complementary_masks(32, next_step))


def test_boxes_are_filled_from_the_reversed_batch(
    pixel_network: Callable[[], SegmentationNetwork],
    parts: Callable[..., TrainingParts],
    random_batch: Callable[..., TrainBatch],
    vocabulary: Vocabulary,
) -> None:
    network = pixel_network()
    seen: list[Tensor] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].clone())

    network.encoder.register_forward_pre_hook(note)
    batch = random_batch(["unlabeled"], count=3)
    perturbation = UniMatchV2(PerturbationConfig(), vocabulary)
    training_step(parts(perturbation, network, [EmaSource(EmaSource.Config())]), batch, START)
    # The moving average is a copy: of its hook too.
    labeled, _, strong = seen
    assert torch.equal(labeled, batch.labeled.images)
    for number, view in enumerate(strong.chunk(2)):
        own = batch.strong("unlabeled", number)
        box = boxes(batch, "unlabeled", number)[:, None]
        assert torch.equal(view, torch.where(box, own.flip(0), own))
        assert torch.equal(view[1], own[1])


def test_the_term_is_half_of_each_strong_view(
    pixel_network: Callable[[], SegmentationNetwork],
    parts: Callable[..., TrainingParts],
    random_batch: Callable[..., TrainBatch],
    vocabulary: Vocabulary,
) -> None:
    """Recomputed by hand with the published weights (arXiv 2410.10777)."""
    batch, source = random_batch(["unlabeled"]), EmaSource(EmaSource.Config(threshold=0.4))
    teacher = frozen_copy(pixel_network())
    nn.init.normal_(teacher.get_submodule("classifier").get_parameter("weight"), std=3)
    perturbation = UniMatchV2(PerturbationConfig(), vocabulary)
    losses = training_step(parts(perturbation, pixel_network(), [source], teacher), batch, START)

    own, network = batch.crops["unlabeled"], pixel_network()
    labels = PseudoLabels.from_logits(teacher(own.weak))
    reverse = PseudoLabels(labels.mask.flip(0), labels.confidence.flip(0))
    other = own.valid.flip(0)
    views = [batch.strong("unlabeled", number) for number in range(2)]
    inside = [boxes(batch, "unlabeled", number) for number in range(2)]
    mixed = [torch.where(box[:, None], v.flip(0), v) for v, box in zip(views, inside, strict=True)]
    (level,) = network.encode(torch.cat(mixed))
    masks = complementary_masks(level.shape[1], batch.random)[:, :, None, None]
    logits = network.decode([level * masks], (8, 8)).chunk(2)
    first, second = (
        source.loss(own_logits, labels.pasted(reverse, box), own.valid.where(~box, other))
        for own_logits, box in zip(logits, inside, strict=True)
    )
    assert abs(first - second) > 1e-3
    term = (first + second) / 2
    torch.testing.assert_close(losses.terms[source.name], term)
    torch.testing.assert_close(losses.total, (losses.terms["supervised"] + term) / 2)


class TwoLevels(nn.Module):
    """Has features of ones at two levels; decoding hands them on."""

    def encode(self, images: Tensor) -> list[Tensor]:
        return [torch.ones(len(images), 16, side, side) for side in (4, 2)]

    def decode(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        fine, deep = features
        assert torch.equal(fine, fine[:, :, :1, :1].expand_as(fine))  # whole channels
        return torch.stack([fine[:, :, 0, 0], deep[:, :, 0, 0]])


def test_all_levels_of_the_features_are_multiplied_by_the_same_masks(
    random_batch: Callable[..., TrainBatch], vocabulary: Vocabulary
) -> None:
    batch = random_batch(["unlabeled"])
    views = torch.zeros(8, 3, 8, 8)
    perturbation = UniMatchV2(PerturbationConfig(), vocabulary)
    fine, deep = perturbation.strong_logits(TwoLevels(), views, batch)  # type: ignore[arg-type]
    assert torch.equal(fine, deep)
    assert torch.equal(fine, complementary_masks(16, batch.random))
