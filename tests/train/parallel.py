"""A training for torchrun, of all that stage two has but BatchNorm: python -m tests.train.parallel.

Its network has GroupNorm, for a CPU has no BatchNorm that takes its statistics over processes.
"""

import sys
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.config import components
from pipeline.config.vocabulary import ClassEntry, Vocabulary
from stages.models.segmenters.networks.base import SegmentationNetwork
from stages.train import distributed
from stages.train.data.crops import Crops, TrainImage
from stages.train.loop.checkpoint import Checkpoint
from stages.train.loop.loop import Optimization, Training
from stages.train.records.training_log import TrainingLog
from stages.train.step.discriminator import Discriminator, FeatureDiscriminator
from stages.train.step.label_sources.ema import EmaSource
from stages.train.step.label_sources.student import StudentSource
from stages.train.step.perturbations.base import Perturbation
from stages.train.step.supervised_losses.cross_entropy import CrossEntropyConfig, CrossEntropyLoss
from stages.train.step.supervised_losses.ohem import OhemConfig, OhemLoss

STEPS, CROP_PX, NUM_CLASSES = 6, 16, 3
CASES = {
    "whole": ("unimatch", 8, 1),
    "micro": ("unimatch", 8, 2),
    "opposite": ("unimatch_v2", 6, 1),  # a share of three pastes from the other one's
    "next": ("classmix", 6, 1),
}
"""Perturbation, batch size and micro-batches a step."""
VOCABULARY = Vocabulary(
    name="shapes",
    classes=tuple(ClassEntry(name=name, color="#000000") for name in ("background", "disc", "box")),
)
CPU = torch.device("cpu")


class GroupNetwork(SegmentationNetwork):
    """Two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        norm = nn.GroupNorm(2, 8)
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), norm, nn.ReLU())
        self.classifier = nn.Conv2d(8, NUM_CLASSES, 1)
        self.unused = nn.Parameter(torch.ones(1))  # as ViTs have some

    def encode(self, images: Tensor) -> list[Tensor]:
        return [self.encoder(images)]

    def fuse(self, features: list[Tensor]) -> Tensor:
        return features[0]

    def classify(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        logits: Tensor = self.classifier(maps)
        return logits


def training(folder: Path, name: str, accumulate: int) -> Training:
    """What goes on from, and ends in, a folder."""
    torch.manual_seed(0)
    kind = components.find("stages.train.step.perturbations", name, Perturbation)  # type: ignore[type-abstract]
    sources = [
        EmaSource(EmaSource.Config(threshold=0.36, mode="batchratio")),
        StudentSource(StudentSource.Config(threshold=0.36, mode="pixelavg", weight=0.1)),
    ]
    return Training(
        network=GroupNetwork(),
        perturbation=components.Choice(name, kind, kind.Config()).create(VOCABULARY),
        sources=sources,
        supervised_loss=(
            OhemLoss(OhemConfig(threshold=0.5, min_kept=1, images=3))
            if name == "unimatch_v2"
            else CrossEntropyLoss(CrossEntropyConfig())
        ),
        discriminator=Discriminator(FeatureDiscriminator(8), weight=0.01, learning_rate=1e-3),
        optimization=Optimization(
            optimizer="sgd",
            learning_rate=0.05,
            decoder_multiplier=1,
            weight_decay=1e-4,
            ema_decay=0.9,
            steps=STEPS,
            seed=3,
            precision="float32",
            accumulate=accumulate,
            clip_norm=0.5,
        ),
        checkpoint=Checkpoint(folder / "last.pt", {}),
        log=TrainingLog(folder / "log.jsonl", writes=distributed.rank() == 0),
        checkpoint_every=2,
        log_every=1,
        steps_an_epoch=1,
    )


def crops(data: Path, count: int) -> Crops:
    """Crops of the test images of `tests.conftest`, this process's share."""
    return Crops(
        labeled=[
            TrainImage(str(path), mask_uri=str(data / "labeled/masks" / path.name))
            for path in sorted(data.glob("labeled/images/*.png"))
        ],
        others={"unlabeled": [TrainImage(str(p)) for p in sorted(data.glob("ood/images/*.png"))]},
        draws_twice=True,
        vocabulary=VOCABULARY,
        seed=3,
        batch_size=count,
        crop_px=CROP_PX,
        scale=(0.5, 2.0),
        rows=distributed.own_rows(count, distributed.rank(), distributed.world()),
    )


def main(data: Path, folder: Path) -> None:
    """Does each training, and leaves the teachers."""
    for case, (perturbation, batch_size, accumulate) in CASES.items():
        own = folder / case
        drawn = crops(data, batch_size // accumulate)
        made = training(own, perturbation, accumulate)
        feed = partial(drawn.batches, device=CPU, workers=1)
        teacher = made.run(feed, CPU, lambda *_: None)
        if distributed.rank() == 0:
            save_file(teacher.state_dict(), own / "model.safetensors")


if __name__ == "__main__":
    with distributed.joined("cpu"):
        main(Path(sys.argv[1]), Path(sys.argv[2]))
