from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pipeline import components
from stages.pseudolabel.pseudo_labels import PseudoLabels
from stages.train.batch import MIX, CropBatch, LabeledBatch, TrainBatch
from stages.train.label_sources.base import LabelSource, LabelSourceConfig
from stages.train.losses import pseudo_label_loss

FAMILY = "stages.train.label_sources"
REQUIRED: dict[str, dict[str, str]] = {"stored": {"labeler": "clip"}}
RandomBatch = Callable[..., TrainBatch]


def source(name: str, **keys: object) -> LabelSource:
    found = components.find(FAMILY, name, LabelSource)  # type: ignore[type-abstract]
    config = found.Config.model_validate({**REQUIRED.get(name, {}), **keys})
    assert isinstance(config, LabelSourceConfig)
    return found(config)


def seen_by_a_student(batch: TrainBatch) -> dict[str, PseudoLabels]:
    generator = torch.Generator().manual_seed(5)
    return {
        key: PseudoLabels.from_logits(3 * torch.randn(crops.weak.shape, generator=generator))
        for key, crops in batch.crops.items()
    }


def assert_equal(found: PseudoLabels, expected: PseudoLabels) -> None:
    assert torch.equal(found.mask, expected.mask)
    assert torch.equal(found.confidence, expected.confidence)


@pytest.fixture(params=components.names(FAMILY))
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.mark.parametrize("role", ["unlabeled", "ood"])
def test_every_source_gives_each_pixel_a_class_and_a_weight(
    name: str, role: str, random_batch: RandomBatch
) -> None:
    batch = random_batch([role])
    before = {key: crops.stored["clip"].mask.clone() for key, crops in batch.crops.items()}
    student = seen_by_a_student(batch)
    own = source(name, on=role)
    for labels in (own.label(batch.crops[role], student[role]), own.label_partner(batch, student)):
        assert labels.mask.shape == labels.confidence.shape == batch.crops[role].valid.shape
        assert (labels.mask.dtype, labels.confidence.dtype) == (torch.int64, torch.float32)
        assert set(labels.mask.flatten().tolist()) <= {0, 1, 2, 255}
        assert 0 <= labels.confidence.min() < labels.confidence.max() <= 1
        assert (labels.confidence[labels.mask == 255] == 0).all()
        assert not labels.confidence.requires_grad
    for key, mask in before.items():
        assert torch.equal(batch.crops[key].stored["clip"].mask, mask)


def test_every_source_is_named_after_its_file_and_role(name: str) -> None:
    names = {source(name, on=role).name for role in ("unlabeled", "ood")}
    assert len(names) == 2
    assert all(found.startswith(f"{name}_") for found in names)


def test_every_source_labels_the_second_draw_of_its_own_role_itself(
    name: str, random_batch: RandomBatch
) -> None:
    batch = random_batch(["unlabeled", "ood"])
    student = seen_by_a_student(batch)
    own = source(name, on="unlabeled")
    assert_equal(own.label_partner(batch, student), own.label(batch.crops[MIX], student[MIX]))


def test_every_source_leaves_pasted_pixels_of_another_role_to_the_student(
    name: str, random_batch: RandomBatch
) -> None:
    batch = random_batch(["unlabeled", "ood"])
    student = seen_by_a_student(batch)
    own = source(name, on="ood")
    pasted = own.label_partner(batch, student)
    assert_equal(pasted, student["unlabeled"].confident(own.student_threshold))


@pytest.mark.parametrize("name", ["student", "ema"])
def test_a_network_counts_where_it_is_confident_and_nowhere_else(name: str) -> None:
    seen = PseudoLabels(torch.tensor([[[0, 1, 2]]]), torch.tensor([[[0.5, 0.75, 0.7499]]]))
    labels = source(name, threshold=0.75).label(crops([[[True] * 3]]), seen)
    assert_equal(labels, PseudoLabels(seen.mask, torch.tensor([[[0.0, 1.0, 0.0]]])))


@pytest.mark.parametrize(
    ("name", "keys", "asked"),
    [
        ("student", {}, "student"),
        ("ema", {}, "teacher"),
        ("stored", {}, "student"),
        ("stored", {"student": "ema"}, "teacher"),
    ],
)
def test_a_source_asks_the_student_or_its_moving_average(
    name: str, keys: dict[str, str], asked: str
) -> None:
    assert source(name, **keys).asks == asked


@pytest.mark.parametrize(("confidence", "weights"), [("stored", [0.25, 0.0]), ("one", [1.0, 0.0])])
def test_stored_labels_weigh_their_confidence_or_one(confidence: str, weights: list[float]) -> None:
    stored = PseudoLabels(torch.tensor([[[2, 255]]]), torch.tensor([[[0.25, 0.0]]]))
    own = source("stored", confidence=confidence)
    labels = own.label(crops([[[True, False]]], clip=stored), PseudoLabels.from_logits(ONES))
    assert_equal(labels, PseudoLabels(stored.mask, torch.tensor([[weights]])))


def test_calibrated_labels_weigh_what_the_map_of_their_class_says() -> None:
    maps = torch.stack([torch.arange(256), torch.arange(256) // 3]).to(torch.uint8)
    stored = PseudoLabels(torch.tensor([[0, 1, 1, 255]]), torch.tensor([[153, 153, 255, 0]]) / 255)
    labels = stored.calibrated(maps)
    assert_equal(labels, PseudoLabels(stored.mask, torch.tensor([[153.0, 51.0, 85.0, 0.0]]) / 255))


def test_stored_labels_are_those_of_the_labeler_named() -> None:
    maps = {
        labeler: PseudoLabels(torch.full((1, 1, 2), class_id), torch.ones(1, 1, 2))
        for class_id, labeler in enumerate(["clip", "sam"])
    }
    own = source("stored", labeler="sam")
    assert own.labeler == "sam"
    assert own.name == "stored_ood_sam"
    labels = own.label(crops([[[True, True]]], **maps), PseudoLabels.from_logits(ONES))
    assert labels.mask.tolist() == [[[1, 1]]]


@pytest.mark.parametrize(
    ("box", "mask", "weights", "valid_count"),
    [
        ([False, True], [5, 7], [1.0, 0.0], 2),
        ([False, False], [5, 255], [1.0, 0.0], 1),
    ],
)
def test_unlabeled_pixels_in_ood_crops_count_only_where_the_student_is_confident(
    box: list[bool], mask: list[int], weights: list[float], valid_count: int
) -> None:
    """The worked example of SemiOVS: labels [5, padding], a student that sees 7 at 0.5."""
    inside = torch.tensor([[box]])
    stored = PseudoLabels(torch.tensor([[[5, 255]]]), torch.tensor([[[1.0, 0.0]]]))
    own, other = crops([[[True, False]]], clip=stored), crops([[[True, True]]])
    batch = TrainBatch(
        LabeledBatch(torch.zeros(0, 3, 1, 2), torch.zeros(0, 1, 2)),
        {"unlabeled": other, "ood": own},
        (inside, inside),
    )
    student = {"unlabeled": PseudoLabels(torch.full((1, 1, 2), 7), torch.full((1, 1, 2), 0.5))}
    semiovs = source("stored", confidence="one", student_threshold=0.95)
    labels = semiovs.label(own, PseudoLabels.from_logits(ONES))
    mixed = labels.pasted(semiovs.label_partner(batch, student), inside)
    assert_equal(mixed, PseudoLabels(torch.tensor([[mask]]), torch.tensor([[weights]])))
    valid = torch.where(inside, other.valid, own.valid)
    assert int(valid.sum()) == valid_count
    logits = torch.randn(1, 8, 1, 2, generator=torch.Generator().manual_seed(0))
    first_pixel = cross_entropy(logits[..., 0], torch.tensor([[5]]))
    loss = pseudo_label_loss(logits, mixed, valid)
    torch.testing.assert_close(loss, first_pixel / valid_count)


ONES = torch.ones(1, 3, 1, 2)


def crops(valid: list[list[list[bool]]], **stored: PseudoLabels) -> CropBatch:
    where: Tensor = torch.tensor(valid)
    image = torch.zeros(len(where), 3, *where.shape[1:])
    return CropBatch(image, (image, image), where, stored)
