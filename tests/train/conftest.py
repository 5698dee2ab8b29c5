from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Generator, Tensor, nn

from pipeline.config.vocabulary import Vocabulary
from stages.labels.pseudo_labels import PseudoLabels
from stages.models.segmenters.networks.base import SegmentationNetwork
from stages.train.data.batch import MIX, CropBatch, LabeledBatch, TrainBatch
from stages.train.data.random_numbers import Draws
from stages.train.loop.teacher import frozen_copy
from stages.train.step.label_sources.base import LabelSource
from stages.train.step.parts import Learner
from stages.train.step.supervised_losses.cross_entropy import CrossEntropyConfig, CrossEntropyLoss

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
def learner() -> Callable[..., Learner]:
    """Builds a learner around a network; by default its moving average is a copy."""

    def build(
        student: SegmentationNetwork,
        sources: Sequence[LabelSource],
        teacher: SegmentationNetwork | None = None,
    ) -> Learner:
        loss = CrossEntropyLoss(CrossEntropyConfig())
        return Learner(student, teacher or frozen_copy(student), sources, loss)

    return build


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
        keys = [*roles, MIX] if roles else []
        crops = {key: _crops(count, generator) for key in keys}
        draws = Draws(seed, step, range(count), count)
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
