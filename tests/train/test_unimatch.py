"""The forward passes and terms of FixMatch, UniMatch and SemiOVS, as published."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pipeline.config.vocabulary import Vocabulary
from stages.labels.pseudo_labels import PseudoLabels
from stages.models.segmenters.networks.base import SegmentationNetwork, frozen_copy
from stages.models.segmenters.normalization import normalize
from stages.train.data.batch import SECOND_DRAW, CropBatch, LabeledBatch, TrainBatch
from stages.train.data.random_numbers import StepRandom
from stages.train.step.clean_forward import LABELED, clean_forward
from stages.train.step.label_sources.ema import EmaSource
from stages.train.step.label_sources.stored import StoredConfig, StoredSource
from stages.train.step.label_sources.student import StudentSource
from stages.train.step.parts import TrainingParts
from stages.train.step.perturbations.base import PerturbationConfig
from stages.train.step.perturbations.fixmatch import FixMatch
from stages.train.step.perturbations.unimatch import UniMatch
from stages.train.step.schedule import StepPosition
from stages.train.step.step import training_step
from stages.train.step.strong_views import boxes

BuildNetwork = Callable[[], SegmentationNetwork]
BuildParts = Callable[..., TrainingParts]
RandomBatch = Callable[..., TrainBatch]

START = StepPosition(step=0, steps=10, steps_an_epoch=5)
STUDENT = StudentSource(StudentSource.Config(threshold=0.4))
STORED = StoredSource(StoredConfig(labeler="clip"))
GREYS = {"labeled": 0.9, "unlabeled": 0.1, SECOND_DRAW: 0.3, "ood": 0.6}
COUNT = 6


@pytest.fixture
def unimatch(vocabulary: Vocabulary) -> UniMatch:
    return UniMatch(PerturbationConfig(), vocabulary)


def grey(key: str) -> Tensor:
    return torch.full((COUNT, 3, 4, 4), GREYS[key])


def grey_batch(*keys: str) -> TrainBatch:
    shape = (COUNT, 4, 4)
    labels = PseudoLabels(torch.zeros(shape, dtype=torch.int64), torch.ones(shape))
    valid = torch.ones(shape, dtype=torch.bool)
    crops = {key: CropBatch(grey(key), valid, {"clip": labels}) for key in keys}
    labeled = LabeledBatch(grey("labeled"), torch.zeros(shape, dtype=torch.int64))
    return TrainBatch(labeled, crops, StepRandom(0, 0, range(COUNT), COUNT))


def inputs_of(network: SegmentationNetwork) -> list[tuple[bool, Tensor]]:
    """Fills up with what the encoder sees, and whether in train mode."""
    seen: list[tuple[bool, Tensor]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append((module.training, inputs[0].clone()))

    network.encoder.register_forward_pre_hook(note)
    return seen


def pasted(batch: TrainBatch, role: str, partner: str) -> Tensor:
    """Both strong views of a role with the boxes of its partner's."""
    views = [
        torch.where(
            boxes(batch, role, number)[:, None],
            batch.strong(partner, number),
            batch.strong(role, number),
        )
        for number in range(2)
    ]
    return torch.cat(views)


def test_forward_passes_and_paste_order_are_those_of_semiovs(
    pixel_network: BuildNetwork, parts: BuildParts, unimatch: UniMatch
) -> None:
    network = pixel_network()
    seen = inputs_of(network)
    batch = grey_batch("unlabeled", "ood", SECOND_DRAW)
    training_step(parts(unimatch, network, [STUDENT, STORED]), batch, START)
    draw, weak, strong_unlabeled, strong_ood = (images for _, images in seen)
    assert [mode for mode, _ in seen] == [False, True, True, True]
    assert torch.equal(draw, normalize(grey(SECOND_DRAW)))
    together = torch.cat([grey(key) for key in ("labeled", "unlabeled", "ood")])
    assert torch.equal(weak, normalize(together))
    assert torch.equal(strong_unlabeled, pasted(batch, "unlabeled", SECOND_DRAW))
    assert torch.equal(strong_ood, pasted(batch, "ood", "unlabeled"))
    assert boxes(batch, "ood", 0).any()
    assert torch.equal(boxes(batch, "ood", 0), boxes(batch, "unlabeled", 0))
    assert not torch.equal(boxes(batch, "ood", 0), boxes(batch, "ood", 1))


def test_fixmatch_passes_one_strong_view_and_labels_it_in_train_mode(
    pixel_network: BuildNetwork,
    parts: BuildParts,
    random_batch: RandomBatch,
    vocabulary: Vocabulary,
) -> None:
    network = pixel_network()
    seen = inputs_of(network)
    batch = random_batch(["unlabeled"])
    own, mix, box = batch.crops["unlabeled"], batch.crops[SECOND_DRAW], boxes(batch, "unlabeled", 0)
    fixmatch = FixMatch(PerturbationConfig(), vocabulary)
    losses = training_step(parts(fixmatch, network, [STUDENT]), batch, START)
    (draw, weak, strong) = (images for _, images in seen)
    assert [mode for mode, _ in seen] == [False, True, True]
    assert torch.equal(draw, mix.weak)
    assert torch.equal(weak, torch.cat([batch.labeled.images, own.weak]))
    views = batch.strong("unlabeled", 0), batch.strong(SECOND_DRAW, 0)
    assert torch.equal(strong, torch.where(box[:, None], views[1], views[0]))

    pasted = PseudoLabels.from_logits(pixel_network().eval()(mix.weak))
    labels = PseudoLabels.from_logits(pixel_network().train()(weak)[len(own.weak) :])
    assert torch.equal(losses.labels[STUDENT.name].mask, labels.mask)
    logits = pixel_network().train()(strong)
    valid = torch.where(box, mix.valid, own.valid)
    term = STUDENT.loss(logits, labels.pasted(pasted, box), valid)
    torch.testing.assert_close(losses.terms[STUDENT.name], term)
    torch.testing.assert_close(losses.total, (losses.terms["supervised"] + term) / 2)


def test_a_lone_ood_role_is_mixed_with_its_own_second_draw(
    pixel_network: BuildNetwork, parts: BuildParts, unimatch: UniMatch
) -> None:
    network = pixel_network()
    seen = inputs_of(network)
    batch = grey_batch("ood", SECOND_DRAW)
    training_step(parts(unimatch, network, [STORED]), batch, START)
    assert torch.equal(seen[-1][1], pasted(batch, "ood", SECOND_DRAW))


def test_stored_labels_alone_need_no_look_at_the_second_draw(
    pixel_network: BuildNetwork, parts: BuildParts, unimatch: UniMatch
) -> None:
    network = pixel_network()
    seen = inputs_of(network)
    training_step(parts(unimatch, network, [STORED]), grey_batch("ood", SECOND_DRAW), START)
    assert [mode for mode, _ in seen] == [True, True]


def test_the_term_is_a_quarter_of_each_strong_view_and_half_of_perturbed_features(
    pixel_network: BuildNetwork,
    parts: BuildParts,
    unimatch: UniMatch,
    random_batch: RandomBatch,
) -> None:
    """Recomputed by hand with the published weights (arXiv 2208.09910)."""
    batch = random_batch(["ood"])
    own, mix = batch.crops["ood"], batch.crops[SECOND_DRAW]
    losses = training_step(parts(unimatch, pixel_network(), [STORED]), batch, START)

    network = pixel_network()
    views = [{LABELED: batch.labeled.images, "ood": own.weak}]
    clean = clean_forward(network, views, batch.random, perturb=True, separate_domains=False)
    term = 0.5 * STORED.loss(clean.perturbed["ood"], own.stored["clip"], own.valid)
    for number, logits in enumerate(network(pasted(batch, "ood", SECOND_DRAW)).chunk(2)):
        box = boxes(batch, "ood", number)
        mixed = own.stored["clip"].pasted(mix.stored["clip"], box)
        term = term + 0.25 * STORED.loss(logits, mixed, torch.where(box, mix.valid, own.valid))
    torch.testing.assert_close(losses.terms["stored_ood_clip"], term)
    torch.testing.assert_close(losses.total, (losses.terms["supervised"] + term) / 2)


def test_half_of_the_channels_are_dropped_and_the_rest_doubled(
    pixel_network: BuildNetwork, random_batch: RandomBatch
) -> None:
    batch = random_batch(["ood"], count=40)
    network = pixel_network()
    decoded: list[Tensor] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        decoded.append(inputs[0])

    network.get_submodule("classifier").register_forward_pre_hook(note)
    views = {"ood": batch.crops["ood"].weak}
    clean_forward(network, [views], batch.random, perturb=True, separate_domains=False)
    clean, dropped = decoded[0].chunk(2)
    shown = clean.flatten(2).sum(-1) > 0
    kept = dropped.flatten(2).sum(-1)[shown] / clean.flatten(2).sum(-1)[shown]
    torch.testing.assert_close(kept, torch.where(kept > 1, 2.0, 0.0))
    assert (kept > 1).float().mean().item() == pytest.approx(0.5, abs=0.1)


def test_the_teacher_labels_the_weak_views_and_what_is_pasted_into_them(
    pixel_network: BuildNetwork,
    parts: BuildParts,
    unimatch: UniMatch,
    random_batch: RandomBatch,
) -> None:
    """As stored labels would that hold just what the teacher sees."""
    batch = random_batch(["ood"])
    teacher = frozen_copy(pixel_network())
    torch.nn.init.normal_(teacher.get_submodule("classifier").get_parameter("weight"), std=3)
    with torch.no_grad():
        for crops in batch.crops.values():
            labels = PseudoLabels.from_logits(teacher(crops.weak)).confident(0.4)
            crops.stored["clip"].mask.copy_(labels.mask)
            crops.stored["clip"].confidence.copy_(labels.confidence)
    terms = []
    for source in (EmaSource(EmaSource.Config(on="ood", threshold=0.4)), STORED):
        losses = training_step(parts(unimatch, pixel_network(), [source], teacher), batch, START)
        terms.append(losses.terms[source.name])
    torch.testing.assert_close(*terms)
    assert terms[0] > 0


def test_the_students_own_clean_view_only_labels(
    pixel_network: BuildNetwork,
    parts: BuildParts,
    unimatch: UniMatch,
    random_batch: RandomBatch,
) -> None:
    """Pseudo-labels are read from clean weak logits; into these no gradient flows."""
    network = pixel_network()
    decoded: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> None:
        if logits.requires_grad:
            logits.retain_grad()
            decoded.append(logits)

    network.get_submodule("classifier").register_forward_hook(keep)
    losses = training_step(parts(unimatch, network, [STUDENT]), random_batch(["unlabeled"]), START)
    losses.total.backward()  # type: ignore[no-untyped-call]
    first_gradient = decoded[0].grad
    assert first_gradient is not None
    labeled, weak, perturbed_labeled, perturbed_weak = first_gradient.chunk(4)
    assert labeled.abs().sum() > 0
    assert perturbed_weak.abs().sum() > 0
    assert (weak == 0).all()
    assert (perturbed_labeled == 0).all()


@pytest.mark.parametrize("name", ["encoder.1.running_mean", "encoder.1.num_batches_tracked"])
def test_the_second_draw_leaves_batch_statistics_alone(
    pixel_network: BuildNetwork,
    parts: BuildParts,
    unimatch: UniMatch,
    random_batch: RandomBatch,
    name: str,
) -> None:
    statistics = []
    for value in (0.0, 1.0):
        batch = random_batch(["unlabeled"])
        batch.crops[SECOND_DRAW].pixels.fill_(value)
        for number in range(2):
            batch.strong(SECOND_DRAW, number).copy_(batch.strong("unlabeled", number))
        network = pixel_network()
        training_step(parts(unimatch, network, [STUDENT]), batch, START)
        statistics.append(network.state_dict()[name])
    assert torch.equal(*statistics)


def test_separate_domains_pass_separately_and_only_clean_target_views_move_statistics(
    pixel_network: BuildNetwork, parts: BuildParts, vocabulary: Vocabulary
) -> None:
    network = pixel_network()
    norm = nn.BatchNorm2d(3)
    network.encoder = nn.Sequential(norm, network.encoder)
    seen = inputs_of(network)
    apart = UniMatch(PerturbationConfig(separate_domains=True), vocabulary)
    training_step(parts(apart, network, [STORED]), grey_batch("ood", SECOND_DRAW), START)
    train_passes = [images for mode, images in seen if mode]
    assert torch.equal(train_passes[0], normalize(grey("labeled")))
    assert torch.equal(train_passes[1], normalize(grey("ood")))
    assert len(train_passes) == 3
    assert norm.momentum == 0.1
    assert norm.running_mean is not None
    torch.testing.assert_close(norm.running_mean, 0.1 * normalize(grey("labeled"))[0, :, 0, 0])
