"""What holds for every label source in the folder, and what each adds."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pipeline.config import components
from pipeline.config.config import Config, RunConfig
from pipeline.config.vocabulary import Vocabulary
from stages.labels.pseudo_labels import PseudoLabels
from stages.models.segmenters.networks.base import SegmentationNetwork, frozen_copy
from stages.pseudolabel.labelers.base import ImageBatch
from stages.train.data.batch import SECOND_DRAW, CropBatch, LabeledBatch, TrainBatch
from stages.train.data.random_numbers import StepRandom
from stages.train.step.label_sources.base import LabelSource, LabelSourceConfig
from stages.train.step.label_sources.guidance import GuidanceSource
from stages.train.step.schedule import Length, StepPosition
from stages.train.step.weak_predictions import WeakPredictions

FAMILY = "stages.train.step.label_sources"
BACKGROUND = {"name": "dense_clip", "model": "sandbox", "window_px": 16, "stride_px": 16}
REQUIRED: dict[str, dict[str, object]] = {
    "stored": {"labeler": "clip"},
    "enhanced": {"labeler": "clip"},
    "guidance": {"labeler": BACKGROUND, "threshold": 0},
}
BuildNetwork = Callable[[], SegmentationNetwork]
RandomBatch = Callable[..., TrainBatch]
BuildSource = Callable[..., LabelSource]
CPU = torch.device("cpu")


def assert_equal(found: PseudoLabels, expected: PseudoLabels) -> None:
    assert torch.equal(found.mask, expected.mask)
    assert torch.equal(found.confidence, expected.confidence)


@pytest.fixture(params=components.names(FAMILY))
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def source(tmp_path: Path, vocabulary: Vocabulary, pixel_network: BuildNetwork) -> BuildSource:
    """Builds a source by name, loaded and, where it needs a past, with one."""
    run = RunConfig(run="a", workspace=tmp_path, vocabulary=Path("pets.yaml"))
    config = Config(tmp_path / "a.yaml", run, {}, vocabulary)

    def build(name: str, **keys: object) -> LabelSource:
        found = components.find(FAMILY, name, LabelSource)  # type: ignore[type-abstract]
        section = found.Config.model_validate({**REQUIRED.get(name, {}), **keys})
        assert isinstance(section, LabelSourceConfig)
        own = found(section)
        own.load(config, CPU)
        own.validated(pixel_network(), is_best=True, epoch=1)
        return own

    return build


@pytest.fixture
def weak(pixel_network: BuildNetwork) -> Callable[[TrainBatch], WeakPredictions]:
    def of(batch: TrainBatch) -> WeakPredictions:
        student = pixel_network()
        teacher = frozen_copy(student)
        torch.nn.init.normal_(teacher.get_submodule("classifier").get_parameter("weight"), std=3)
        return WeakPredictions(student, teacher, batch)

    return of


@pytest.mark.parametrize("role", ["unlabeled", "ood"])
def test_every_source_gives_each_pixel_a_class_and_a_weight(
    name: str,
    role: str,
    source: BuildSource,
    random_batch: RandomBatch,
    weak: Callable[[TrainBatch], WeakPredictions],
) -> None:
    batch = random_batch([role])
    before = {key: crops.stored["clip"].mask.clone() for key, crops in batch.crops.items()}
    own = source(name, on=role)
    assert own.is_ready
    for key in (role, SECOND_DRAW):
        labels, valid = own.label(batch, key, weak(batch)), batch.crops[key].valid
        assert labels.mask.shape == labels.confidence.shape == valid.shape
        assert (labels.mask.dtype, labels.confidence.dtype) == (torch.int64, torch.float32)
        assert set(labels.mask.flatten().tolist()) <= {0, 1, 2, 255}
        assert 0 <= labels.confidence.min() <= labels.confidence.max() <= 1
        assert (labels.confidence[labels.mask == 255] == 0).all()
        assert not labels.confidence.requires_grad
        weights = own.weigh(labels, valid)
        assert weights.shape == valid.shape
        assert weights.min() >= 0
        assert not weights[~valid].any()
    for key, mask in before.items():
        assert torch.equal(batch.crops[key].stored["clip"].mask, mask)


def test_every_source_is_named_after_its_file_and_role(name: str, source: BuildSource) -> None:
    names = {source(name, on=role).name for role in ("unlabeled", "ood")}
    assert len(names) == 2
    assert all(found.startswith(f"{name}_") for found in names)


def test_every_source_gives_the_same_labels_when_asked_again(
    name: str,
    source: BuildSource,
    random_batch: RandomBatch,
    weak: Callable[[TrainBatch], WeakPredictions],
) -> None:
    batch = random_batch(["unlabeled"])
    own = source(name, on="unlabeled")
    first = own.label(batch, "unlabeled", weak(batch))
    torch.rand(3)
    assert_equal(own.label(batch, "unlabeled", weak(batch)), first)


@pytest.mark.parametrize("name", ["stored", "enhanced"])
def test_what_reads_the_store_leaves_pixels_of_another_role_to_the_student(
    name: str,
    source: BuildSource,
    random_batch: RandomBatch,
    weak: Callable[[TrainBatch], WeakPredictions],
) -> None:
    batch = random_batch(["unlabeled", "ood"])
    seen = weak(batch)
    own = source(name, on="ood", student="ema", student_threshold=0.6)
    sure = seen.of("ema", "unlabeled").confident(0.6)
    assert sure.confidence.any()
    assert_equal(own.label(batch, "unlabeled", seen), sure)
    assert_equal(own.label(batch, SECOND_DRAW, seen), seen.of("ema", SECOND_DRAW).confident(0.6))


@pytest.mark.parametrize(("name", "observer"), [("student", "student"), ("ema", "ema")])
def test_a_network_counts_where_it_is_confident_and_nowhere_else(
    name: str,
    observer: str,
    source: BuildSource,
    random_batch: RandomBatch,
    weak: Callable[[TrainBatch], WeakPredictions],
) -> None:
    batch = random_batch(["unlabeled"])
    seen = weak(batch)
    own = source(name, threshold=0.5)
    labels = own.label(batch, "unlabeled", seen)
    assert_equal(labels, seen.of(observer, "unlabeled"))  # type: ignore[arg-type]
    valid = batch.crops["unlabeled"].valid
    expected = ((labels.confidence >= 0.5) & valid).float()
    assert torch.equal(own.weigh(labels, valid), expected)
    assert 0 < expected.mean() < 1


@pytest.mark.parametrize(("confidence", "weights"), [("stored", [0.25, 0.0]), ("one", [1.0, 0.0])])
def test_stored_labels_weigh_their_confidence_or_one(
    confidence: str, weights: list[float], source: BuildSource
) -> None:
    stored = PseudoLabels(torch.tensor([[[2, 255]]]), torch.tensor([[[0.25, 0.0]]]))
    own = source("stored", confidence=confidence)
    batch = batch_of(ood=crops([[[True, False]]], clip=stored))
    labels = own.label(batch, "ood", blind(batch))
    assert_equal(labels, PseudoLabels(stored.mask, torch.tensor([[weights]])))


def test_calibrated_labels_weigh_what_the_map_of_their_class_says() -> None:
    maps = torch.stack([torch.arange(256), torch.arange(256) // 3]).to(torch.uint8)
    stored = PseudoLabels(torch.tensor([[0, 1, 1, 255]]), torch.tensor([[153, 153, 255, 0]]) / 255)
    labels = stored.calibrated(maps)
    assert_equal(labels, PseudoLabels(stored.mask, torch.tensor([[153.0, 51.0, 85.0, 0.0]]) / 255))


def test_stored_labels_are_those_of_the_labeler_named(source: BuildSource) -> None:
    maps = {
        labeler: PseudoLabels(torch.full((1, 1, 2), class_id), torch.ones(1, 1, 2))
        for class_id, labeler in enumerate(["clip", "sam"])
    }
    own = source("stored", labeler="sam")
    assert own.labeler == "sam"
    assert own.name == "stored_ood_sam"
    batch = batch_of(ood=crops([[[True, True]]], **maps))
    assert own.label(batch, "ood", blind(batch)).mask.tolist() == [[[1, 1]]]


@pytest.mark.parametrize(
    ("box", "mask", "weights", "valid_count"),
    [
        ([False, True], [5, 7], [1.0, 0.0], 2),
        ([False, False], [5, 255], [1.0, 0.0], 1),
    ],
)
def test_unlabeled_pixels_in_ood_crops_count_only_where_the_student_is_confident(
    box: list[bool], mask: list[int], weights: list[float], valid_count: int, source: BuildSource
) -> None:
    """The worked example of SemiOVS: labels [5, padding], a student that sees 7 at 0.5."""
    inside = torch.tensor([[box]])
    stored = PseudoLabels(torch.tensor([[[5, 255]]]), torch.tensor([[[1.0, 0.0]]]))
    own, other = crops([[[True, False]]], clip=stored), crops([[[True, True]]])
    batch = batch_of(unlabeled=other, ood=own)
    seen = blind(batch)
    logits = torch.zeros(1, 8, 1, 2)
    logits[:, 7] = torch.tensor(7.0).log()  # the other seven classes together have as much
    seen.store("student", "unlabeled", logits)
    semiovs = source("stored", confidence="one", student_threshold=0.95)
    mixed = semiovs.label(batch, "ood", seen).pasted(
        semiovs.label(batch, "unlabeled", seen), inside
    )
    assert_equal(mixed, PseudoLabels(torch.tensor([[mask]]), torch.tensor([[weights]])))
    valid = torch.where(inside, other.valid, own.valid)
    assert int(valid.sum()) == valid_count
    student = torch.randn(1, 8, 1, 2, generator=torch.Generator().manual_seed(0))
    first_pixel = cross_entropy(student[..., 0], torch.tensor([[5]]))
    loss = semiovs.loss(student, mixed, valid)
    torch.testing.assert_close(loss, first_pixel / valid_count)


def test_enhanced_labels_are_the_stored_ones_where_the_student_is_unsure(
    source: BuildSource,
) -> None:
    stored = PseudoLabels(torch.tensor([[[2, 2, 255]]]), torch.tensor([[[0.25, 0.5, 0.0]]]))
    batch = batch_of(unlabeled=crops([[[True] * 3]], clip=stored))
    seen = blind(batch)
    logits = torch.zeros(1, 3, 1, 3)
    logits[0, 1, 0] = torch.tensor([0.0, 9.0, 9.0])
    seen.store("student", "unlabeled", logits)
    labels = source("enhanced", student_threshold=0.9).label(batch, "unlabeled", seen)
    assert_equal(labels, PseudoLabels(torch.tensor([[[2, 1, 1]]]), torch.tensor([[[0.25, 1, 1]]])))


def test_enhanced_labels_are_smoothed(source: BuildSource) -> None:
    logits = torch.randn(1, 3, 1, 3, generator=torch.Generator().manual_seed(0))
    labels = PseudoLabels(torch.tensor([[[0, 1, 2]]]), torch.ones(1, 1, 3))
    valid = torch.ones(1, 1, 3, dtype=torch.bool)
    found = source("enhanced", smoothing=0.2).loss(logits, labels, valid)
    torch.testing.assert_close(found, cross_entropy(logits, labels.mask, label_smoothing=0.2))


def test_guidance_counts_all_pixels_and_comes_on_top(source: BuildSource) -> None:
    guidance = source("guidance")
    labels = PseudoLabels(torch.tensor([[[0, 255, 1, 1]]]), torch.tensor([[[1.0, 0, 0, 1.0]]]))
    valid = torch.tensor([[[True, True, False, True]]])
    logits = torch.zeros(1, 3, 1, 4)
    expected = 2 * torch.tensor(3.0).log() / 4
    torch.testing.assert_close(guidance.loss(logits, labels, valid), expected)
    assert guidance.is_auxiliary
    assert [guidance.weight(StepPosition(step, 10, 5)) for step in (0, 5)] == [0.1, 0.05]


def test_guidance_is_what_its_labeler_says_of_the_crops(
    source: BuildSource, random_batch: RandomBatch
) -> None:
    batch = random_batch(["unlabeled"])
    batch.crops["unlabeled"].valid[1:] = True
    sure = {
        threshold: source("guidance", threshold=threshold).label(batch, "unlabeled", blind(batch))
        for threshold in (0.0, 0.5, 1.0)
    }
    assert torch.equal(sure[0.0].confidence > 0, batch.crops["unlabeled"].valid)
    assert torch.equal(sure[0.0].mask, sure[0.5].mask)
    assert not sure[1.0].confidence.any()


def test_guidance_is_as_exact_in_reduced_precision(
    source: BuildSource, random_batch: RandomBatch
) -> None:
    batch = random_batch(["unlabeled"])
    labeler = cast(GuidanceSource, source("guidance"))._frozen
    assert labeler is not None
    pixels = (255 * batch.crops["unlabeled"].pixels).round().to(torch.uint8)
    count, _, height, width = pixels.shape
    with torch.no_grad():
        own = labeler(ImageBatch(pixels, ((height, width),) * count))
    median = own.confidence.median().item()
    with torch.autocast("cpu", torch.bfloat16):
        found = source("guidance", threshold=median).label(batch, "unlabeled", blind(batch))
    sure = (own.confidence >= median) & batch.crops["unlabeled"].valid
    assert_equal(found, PseudoLabels(own.mask, sure.float()))


def test_guidance_that_hardly_a_pixel_passes_is_doubted(source: BuildSource) -> None:
    length = Length(steps=4, epochs=None, validate_every=None)
    assert "rare or none" in str(source("guidance", threshold=1.0).doubts(length))
    assert source("guidance", threshold=0.99).doubts(length) == []


def crops(valid: list[list[list[bool]]], **stored: PseudoLabels) -> CropBatch:
    where: Tensor = torch.tensor(valid)
    image = torch.zeros(len(where), 3, *where.shape[1:])
    return CropBatch(image, where, stored)


def batch_of(**by_role: CropBatch) -> TrainBatch:
    labeled = LabeledBatch(torch.zeros(0, 3, 1, 2), torch.zeros(0, 1, 2))
    return TrainBatch(labeled, by_role, StepRandom(0, 0, range(1), 1))


def blind(batch: TrainBatch) -> WeakPredictions:
    """For sources that look at no network, or at what a test notes."""
    network = torch.nn.Identity()
    return WeakPredictions(network, network, batch)  # type: ignore[arg-type]
