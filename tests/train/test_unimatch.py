from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from stages.pseudolabel.pseudo_labels import PseudoLabels
from stages.segmenters.networks.base import SegmentationNetwork
from stages.train.batch import MIX, CropBatch, LabeledBatch, TrainBatch
from stages.train.label_sources.ema import EmaSource
from stages.train.label_sources.stored import StoredConfig, StoredSource
from stages.train.label_sources.student import StudentSource
from stages.train.losses import pseudo_label_loss
from stages.train.perturbations.unimatch import UniMatch, UniMatchConfig
from stages.train.teacher import frozen_copy

BuildNetwork = Callable[[], SegmentationNetwork]
RandomBatch = Callable[..., TrainBatch]

UNIMATCH = UniMatch(UniMatchConfig())
STUDENT = StudentSource(StudentSource.Config(threshold=0.4))
STORED = StoredSource(StoredConfig(labeler="clip"))
LABELED, UNLABELED, MIXED, OOD = 9.0, 1.0, 2.0, 3.0
STRONG = 0.5
"""Added to an image's value in its strong views, again for the second one."""


def constant(value: float, count: int = 2) -> Tensor:
    return torch.full((count, 3, 4, 4), value)


def constant_crops(value: float) -> CropBatch:
    shape = (2, 4, 4)
    labels = PseudoLabels(torch.zeros(shape, dtype=torch.int64), torch.ones(shape))
    strong = (constant(value + STRONG), constant(value + 2 * STRONG))
    return CropBatch(constant(value), strong, torch.ones(shape, dtype=torch.bool), {"clip": labels})


def left_half_of_the_first() -> Tensor:
    box = torch.zeros(2, 4, 4, dtype=torch.bool)
    box[0, :, :2] = True
    return box


def inputs_of(network: SegmentationNetwork) -> list[tuple[bool, Tensor]]:
    """Fills up with what the encoder sees, and whether in train mode."""
    seen: list[tuple[bool, Tensor]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append((module.training, inputs[0].clone()))

    network.encoder.register_forward_pre_hook(note)
    return seen


def test_forward_passes_and_paste_order_are_those_of_semiovs(pixel_network: BuildNetwork) -> None:
    network = pixel_network()
    seen = inputs_of(network)
    box = left_half_of_the_first()
    crops = {
        "unlabeled": constant_crops(UNLABELED),
        "ood": constant_crops(OOD),
        MIX: constant_crops(MIXED),
    }
    labeled = LabeledBatch(constant(LABELED), torch.zeros(2, 4, 4, dtype=torch.int64))
    UNIMATCH.step(
        network, frozen_copy(network), TrainBatch(labeled, crops, (box, ~box)), [STUDENT, STORED]
    )
    modes = [mode for mode, _ in seen]
    draw, weak, strong_unlabeled, strong_ood = (images for _, images in seen)
    assert modes == [False, True, True, True]
    assert torch.equal(draw, constant(MIXED))
    assert torch.equal(weak, torch.cat([constant(v) for v in (LABELED, UNLABELED, OOD)]))
    for images, own, pasted in ((strong_unlabeled, UNLABELED, MIXED), (strong_ood, OOD, UNLABELED)):
        for k, (view, inside) in enumerate(zip(images.chunk(2), (box, ~box), strict=True), start=1):
            expected = torch.where(inside[:, None], constant(pasted), constant(own)) + k * STRONG
            assert torch.equal(view, expected)


def test_a_lone_ood_role_is_mixed_with_its_own_second_draw(pixel_network: BuildNetwork) -> None:
    network = pixel_network()
    seen = inputs_of(network)
    box = left_half_of_the_first()
    crops = {"ood": constant_crops(OOD), MIX: constant_crops(MIXED)}
    labeled = LabeledBatch(constant(LABELED), torch.zeros(2, 4, 4, dtype=torch.int64))
    UNIMATCH.step(network, frozen_copy(network), TrainBatch(labeled, crops, (box, box)), [STORED])
    first, _ = seen[-1][1].chunk(2)
    expected = torch.where(box[:, None], constant(MIXED), constant(OOD)) + STRONG
    assert torch.equal(first, expected)


def test_the_term_is_a_quarter_of_each_strong_view_and_half_of_perturbed_features(
    pixel_network: BuildNetwork, random_batch: RandomBatch
) -> None:
    """Recomputed by hand with the published weights (arXiv 2208.09910)."""
    batch = random_batch(["ood"])
    own, mix = batch.crops["ood"], batch.crops[MIX]
    network = pixel_network()
    torch.manual_seed(7)
    losses = UNIMATCH.step(network, frozen_copy(network), batch, [STORED])

    network = pixel_network()
    network.eval()(mix.weak)
    network.train()
    torch.manual_seed(7)
    together = torch.cat([batch.labeled.images, own.weak])
    perturbed = network.forward_perturbed(together)[1].chunk(2)[1]
    term = 0.5 * pseudo_label_loss(perturbed, own.stored["clip"], own.valid)
    views = [
        torch.where(box[:, None], theirs, mine)
        for box, mine, theirs in zip(batch.boxes, own.strong, mix.strong, strict=True)
    ]
    for logits, box in zip(network(torch.cat(views)).chunk(2), batch.boxes, strict=True):
        mixed = own.stored["clip"].pasted(mix.stored["clip"], box)
        valid = torch.where(box, mix.valid, own.valid)
        term = term + 0.25 * pseudo_label_loss(logits, mixed, valid)
    torch.testing.assert_close(losses.terms["stored_ood_clip"], term)
    torch.testing.assert_close(losses.total, (losses.terms["supervised"] + term) / 2)


def test_the_teacher_labels_the_weak_views_and_what_is_pasted_into_them(
    pixel_network: BuildNetwork, random_batch: RandomBatch
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
        torch.manual_seed(7)
        losses = UNIMATCH.step(pixel_network(), teacher, batch, [source])
        terms.append(losses.terms[source.name])
    torch.testing.assert_close(*terms)
    assert terms[0] > 0


def test_the_students_own_clean_view_only_labels(
    pixel_network: BuildNetwork, random_batch: RandomBatch
) -> None:
    """Pseudo-labels are read from clean weak logits; into these no gradient flows."""
    network = pixel_network()
    decoded: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> None:
        if logits.requires_grad:
            logits.retain_grad()
            decoded.append(logits)

    network.get_submodule("classifier").register_forward_hook(keep)
    losses = UNIMATCH.step(network, frozen_copy(network), random_batch(["unlabeled"]), [STUDENT])
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
    pixel_network: BuildNetwork, random_batch: RandomBatch, name: str
) -> None:
    batch = random_batch(["unlabeled"])
    statistics = []
    for value in (0.0, 1.0):
        batch.crops[MIX].weak.fill_(value)
        network = pixel_network()
        UNIMATCH.step(network, frozen_copy(network), batch, [STUDENT])
        statistics.append(network.state_dict()[name])
    assert torch.equal(*statistics)


def test_separate_domains_pass_apart_and_only_clean_target_views_move_statistics(
    pixel_network: BuildNetwork,
) -> None:
    network = pixel_network()
    norm = nn.BatchNorm2d(3)
    network.encoder = nn.Sequential(norm, network.encoder)
    seen = inputs_of(network)
    box = left_half_of_the_first()
    crops = {"ood": constant_crops(OOD), MIX: constant_crops(MIXED)}
    labeled = LabeledBatch(constant(LABELED), torch.zeros(2, 4, 4, dtype=torch.int64))
    apart = UniMatch(UniMatchConfig(separate_domains=True))
    apart.step(network, frozen_copy(network), TrainBatch(labeled, crops, (box, ~box)), [STORED])
    train_passes = [images for mode, images in seen if mode]
    assert torch.equal(train_passes[0], constant(LABELED))
    assert torch.equal(train_passes[1], constant(OOD))
    assert len(train_passes) == 3
    assert norm.momentum == 0.1
    assert norm.running_mean is not None
    torch.testing.assert_close(norm.running_mean, torch.full((3,), 0.1 * LABELED))
