from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from pipeline.config.config_section import Facts
from pipeline.config.vocabulary import Vocabulary
from stages.labels.pseudo_labels import PseudoLabels
from stages.models.segmenters.networks.base import SegmentationNetwork, frozen_copy
from stages.train.config import VariantConfig
from stages.train.data.batch import SECOND_DRAW, CropBatch, LabeledBatch, TrainBatch
from stages.train.data.random_numbers import StepRandom
from stages.train.loop.validation import Validation
from stages.train.step.discriminator import Discriminator
from stages.train.step.label_sources.base import LabelSource
from stages.train.step.label_sources.stored import StoredConfig, StoredSource
from stages.train.step.label_sources.student import StudentSource
from stages.train.step.parts import TrainingParts
from stages.train.step.perturbations.base import Perturbation, PerturbationConfig
from stages.train.step.perturbations.unimatch import UniMatch
from stages.train.step.supervised_losses.base import SupervisedLoss
from stages.train.step.supervised_losses.cross_entropy import CrossEntropyConfig, CrossEntropyLoss
from tests.train.training_loops import LoopInFolder, loop_in_folder

NUM_CLASSES = 3
SIZE_PX = 8


class PixelNetwork(SegmentationNetwork):
    """Names each pixel by its colour alone: quick to run, and quick to learn colours."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, kernel_size=1), nn.BatchNorm2d(8), nn.ReLU())
        self.classifier = nn.Conv2d(8, NUM_CLASSES, kernel_size=1)

    def encode(self, images: Tensor) -> list[Tensor]:
        return [self.encoder(images)]

    def fuse(self, features: list[Tensor]) -> Tensor:
        return features[0]

    def classify(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        logits: Tensor = self.classifier(maps)
        return logits


@pytest.fixture
def vocabulary() -> Vocabulary:
    names = ["ground", "cat", "dog"]
    return Vocabulary.model_validate(
        {"name": "pets", "classes": [{"name": n, "color": "#000000"} for n in names]}
    )


@pytest.fixture
def pixel_network() -> Callable[[], SegmentationNetwork]:
    """Builds networks of three classes; each is the same."""

    def build() -> SegmentationNetwork:
        torch.manual_seed(0)
        return PixelNetwork()

    return build


@pytest.fixture
def parts() -> Callable[..., TrainingParts]:
    """Builds the parts of a step around a network; by default the teacher is a copy."""

    def build(
        perturbation: Perturbation,
        student: SegmentationNetwork,
        sources: Sequence[LabelSource],
        teacher: SegmentationNetwork | None = None,
    ) -> TrainingParts:
        loss = CrossEntropyLoss(CrossEntropyConfig())
        return TrainingParts(student, teacher or frozen_copy(student), perturbation, sources, loss)

    return build


@pytest.fixture
def variant() -> Callable[..., VariantConfig]:
    """Builds the config of a training: ``variant(steps=4, perturbation="unimatch")``."""

    def build(**keys: Any) -> VariantConfig:
        defaults = {"model": "small_unet", "perturbation": "unimatch"}
        return VariantConfig.model_validate({**defaults, **keys})

    return build


@pytest.fixture
def build_loop(
    tmp_path: Path,
    parts: Callable[..., TrainingParts],
    variant: Callable[..., VariantConfig],
    pixel_network: Callable[[], SegmentationNetwork],
    vocabulary: Vocabulary,
) -> Callable[..., LoopInFolder]:
    """Builds a training of 4 steps in a folder; a training there is continued."""
    defaults = {
        "steps": 4,
        "learning_rate": 0.1,
        "decoder_multiplier": 10,
        "ema_decay": 0.9,
        "log_every": 1,
        "checkpoint_every": 1,
    }

    def build(
        folder: str = "first",
        sources: Sequence[LabelSource] | None = None,
        supervised_loss: SupervisedLoss | None = None,
        discriminator: Discriminator | None = None,
        seed: int = 5,
        facts: Facts | None = None,
        validation: Validation | None = None,
        **keys: Any,
    ) -> LoopInFolder:
        if sources is None:
            student = StudentSource(StudentSource.Config(threshold=0.4))
            sources = [student, StoredSource(StoredConfig(labeler="clip"))]
        own = parts(UniMatch(PerturbationConfig(), vocabulary), pixel_network(), sources)
        own = replace(own, discriminator=discriminator)
        if supervised_loss is not None:
            own = replace(own, supervised_loss=supervised_loss)
        config = variant(**{**defaults, **keys})
        facts = {"train.steps": config.steps} if facts is None else facts
        place = tmp_path / folder
        return loop_in_folder(
            place, own, config, seed=seed, facts=facts, steps_an_epoch=2, validation=validation
        )

    return build


@pytest.fixture
def draw(random_batch: Callable[..., TrainBatch]) -> Callable[[range], Iterator[TrainBatch]]:
    """Draws the batches of steps."""

    def drawn(steps: range) -> Iterator[TrainBatch]:
        return (random_batch(["unlabeled", "ood"], seed=step) for step in steps)

    return drawn


@pytest.fixture
def random_batch() -> Callable[..., TrainBatch]:
    """Builds batches of random crops; the same seed gives the same batch."""

    def build(
        roles: Sequence[str] = (), seed: int = 0, count: int = 4, step: int = 0
    ) -> TrainBatch:
        generator = torch.Generator().manual_seed(seed)
        shape = (count, SIZE_PX, SIZE_PX)
        labeled = torch.rand(count, 3, SIZE_PX, SIZE_PX, generator=generator)
        mask = torch.randint(0, NUM_CLASSES, shape, generator=generator)
        mask[:, :, -1] = 255
        keys = [*roles, SECOND_DRAW] if roles else []
        crops = {key: _crops(count, generator) for key in keys}
        draws = StepRandom(seed, step, range(count), count)
        return TrainBatch(LabeledBatch(labeled, mask), crops, draws)

    return build


def _crops(count: int, generator: Generator) -> CropBatch:
    pixels = torch.rand(count, 3, SIZE_PX, SIZE_PX, generator=generator)
    shape = (count, SIZE_PX, SIZE_PX)
    valid = torch.ones(shape, dtype=torch.bool)
    valid[0, int(torch.randint(SIZE_PX, (), generator=generator)) :] = False
    mask = torch.randint(0, NUM_CLASSES, shape, generator=generator)
    confidence = torch.rand(shape, generator=generator)
    mask[:, 0] = 255
    unlabeled = (mask == 255) | ~valid
    stored = PseudoLabels(mask.masked_fill(~valid, 255), confidence.masked_fill(unlabeled, 0))
    return CropBatch(pixels, valid, {"clip": stored})
