"""Trainings for torchrun: python -m tests.train.parallel.

The networks have GroupNorm, because synchronized BatchNorm does not run on CPUs; but for those of
trainings that are interrupted and resumed.
"""

import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.config.class_entry import ClassEntry
from pipeline.config.vocabulary import Vocabulary
from stages.models.segmenters.networks.base import SegmentationNetwork, frozen_copy
from stages.train import distributed
from stages.train.config import VariantConfig
from stages.train.data.crops import Crops, TrainImage
from stages.train.step.discriminator import Discriminator, FeatureDiscriminator
from stages.train.step.label_sources.ema import EmaSource
from stages.train.step.label_sources.student import StudentSource
from stages.train.step.parts import TrainingParts
from stages.train.step.supervised_losses.cross_entropy import CrossEntropyConfig, CrossEntropyLoss
from stages.train.step.supervised_losses.ohem import OhemConfig, OhemLoss
from tests.train.interruptions import Draw, Killed, dying_at
from tests.train.training_loops import CPU, loop_in_folder

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


class GroupNetwork(SegmentationNetwork):
    """Two convolutions."""

    def __init__(self, norm: nn.Module | None = None) -> None:
        super().__init__()
        norm = norm or nn.GroupNorm(2, 8)
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


def config_of(case: str) -> VariantConfig:
    """The config of a training."""
    perturbation, batch_size, accumulate = CASES[case]
    return VariantConfig.model_validate(
        {
            "model": "small_unet",  # the networks of the cases are GroupNetworks
            "perturbation": perturbation,
            "crop_px": CROP_PX,
            "batch_size": batch_size,
            "accumulate": accumulate,
            "steps": STEPS,
            "learning_rate": 0.05,
            "decoder_multiplier": 1,
            "ema_decay": 0.9,
            "clip_norm": 0.5,
            "checkpoint_every": 2,
            "log_every": 1,
            "workers": 1,
        }
    )


def parts_of(config: VariantConfig, norm: nn.Module | None = None) -> TrainingParts:
    """The networks and losses of a training."""
    torch.manual_seed(0)
    student = GroupNetwork(norm)
    ohem = OhemLoss(OhemConfig(threshold=0.5, min_kept=1, images=3))
    return TrainingParts(
        student=student,
        teacher=frozen_copy(student),
        perturbation=config.perturbation.create(VOCABULARY),
        sources=[
            EmaSource(EmaSource.Config(threshold=0.36, mode="batchratio")),
            StudentSource(StudentSource.Config(threshold=0.36, mode="pixelavg", weight=0.1)),
        ],
        supervised_loss=(
            ohem
            if config.perturbation.name == "unimatch_v2"
            else CrossEntropyLoss(CrossEntropyConfig())
        ),
        discriminator=Discriminator(FeatureDiscriminator(8), weight=0.01, learning_rate=1e-3),
    )


def crops(data: Path, config: VariantConfig) -> Crops:
    """Crops of the test images of `tests.conftest`, this process's share."""
    return Crops(
        labeled=[
            TrainImage(str(path), mask_uri=str(data / "labeled/masks" / path.name))
            for path in sorted(data.glob("labeled/images/*.png"))
        ],
        others={"unlabeled": [TrainImage(str(p)) for p in sorted(data.glob("ood/images/*.png"))]},
        config=config,
        vocabulary=VOCABULARY,
        seed=3,
        rows=distributed.local_rows(
            config.micro_batch_size, distributed.rank(), distributed.world()
        ),
    )


def main(data: Path, folder: Path) -> None:
    """Does each training, and leaves the teachers."""
    for case in CASES:
        config, own = config_of(case), folder / case
        feed = partial(crops(data, config).batches, device=CPU)
        made = loop_in_folder(own, parts_of(config), config, seed=3, facts={}, steps_an_epoch=1)
        made.loop.run(feed)
        if distributed.rank() == 0:
            save_file(made.teacher.state_dict(), own / "model.safetensors")


def resume(data: Path, folder: Path, device: torch.device) -> None:
    """Does a training without and with an interruption; each process leaves its networks."""
    config = config_of("whole")
    feed = partial(crops(data, config).batches, device=device)

    def train(name: str, feed: Draw) -> None:
        parts, own = parts_of(config, nn.BatchNorm2d(8)), folder / name
        made = loop_in_folder(own, parts, config, seed=3, facts={}, steps_an_epoch=1, device=device)
        made.loop.run(feed)
        for kind, network in {"student": made.student, "teacher": made.teacher}.items():
            save_file(network.state_dict(), own / f"{kind}-{distributed.rank()}.safetensors")

    train("undisturbed", feed)
    with suppress(Killed):
        train("resumed", dying_at(3, feed))
    train("resumed", feed)


if __name__ == "__main__":
    with distributed.process_group("cpu") as own_device:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
        resume(Path(sys.argv[1]), Path(sys.argv[2]), own_device)
