"""A training for torchrun, of all that stage two has but BatchNorm: python -m tests.train.parallel.

Its network has GroupNorm, for a CPU has no BatchNorm that takes its statistics over processes.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.vocabulary import ClassEntry, Vocabulary
from stages.pseudolabel.pseudo_labels import PseudoLabels
from stages.segmenters.networks.base import SegmentationNetwork
from stages.segmenters.weights import save_weights
from stages.train import processes
from stages.train.batch import TrainBatch
from stages.train.checkpoint import Checkpoint
from stages.train.crops import Crops, TrainImage
from stages.train.label_sources.base import LabelSource
from stages.train.loop import Optimization, Training
from stages.train.losses import pseudo_label_loss, supervised_loss
from stages.train.mixing import paste
from stages.train.perturbations.base import Perturbation, StepLosses
from stages.train.perturbations.unimatch import UniMatchConfig

STEPS, BATCH_SIZE, CROP_PX, NUM_CLASSES = 6, 8, 16, 3
ACCUMULATE = (1, 2)
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

    def decode(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        return self.classify(self.fuse(features), size)


class Mixed(Perturbation):
    """A mixed strong view and dropped channels, against what the teacher sees."""

    def step(
        self,
        network: SegmentationNetwork,
        teacher: SegmentationNetwork,
        batch: TrainBatch,
        sources: Sequence[LabelSource],
    ) -> StepLosses:
        own, box = batch.crops["unlabeled"], batch.boxes[0]
        with torch.no_grad():
            labels = PseudoLabels.from_logits(teacher(own.weak)).confident(0.36)
        order = list(reversed(range(len(box))))
        mixed = paste(own.strong[0], own.strong[0][order], box)
        pasted = PseudoLabels(labels.mask[order], labels.confidence[order])
        features = network.encode(mixed)
        keep = 2 * (processes.rand(len(mixed), 8, 1, 1) < 0.5)
        logits = network.decode([features[0] * keep], (CROP_PX, CROP_PX))
        valid = torch.where(box, own.valid[order], own.valid)
        supervised = supervised_loss(network.train()(batch.labeled.images), batch.labeled.mask)
        term = pseudo_label_loss(logits, labels.pasted(pasted, box), valid)
        return StepLosses(total=supervised + term, terms={"supervised": supervised, "mixed": term})


def training(folder: Path, accumulate: int) -> Training:
    """What goes on from, and ends in, a folder."""
    torch.manual_seed(0)
    return Training(
        network=GroupNetwork(),
        perturbation=Mixed(UniMatchConfig()),
        sources=[],
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
        log=folder / "log.jsonl",
        checkpoint_every=2,
        log_every=1,
        steps_an_epoch=1,
    )


def crops(data: Path, count: int) -> Crops:
    """Crops of the test images of `tests.conftest`, this process's share."""
    ids = {"background": "0", "disc": "1", "box": "2"}
    classes = tuple(ClassEntry(name=name, color="#000000") for name in ids)
    return Crops(
        labeled=[
            TrainImage(str(path), mask_uri=str(data / "labeled/masks" / path.name))
            for path in sorted(data.glob("labeled/images/*.png"))
        ],
        others={"unlabeled": [TrainImage(str(p)) for p in sorted(data.glob("ood/images/*.png"))]},
        vocabulary=Vocabulary(name="shapes", classes=classes),
        seed=3,
        batch_size=count,
        crop_px=CROP_PX,
        scale=(0.5, 2.0),
        rows=processes.own_rows(count, processes.rank(), processes.world()),
    )


def main(data: Path, folder: Path) -> None:
    """Trains with micro-batches and without, and leaves the teachers."""
    for accumulate in ACCUMULATE:
        own = folder / str(accumulate)
        drawn, made = crops(data, BATCH_SIZE // accumulate), training(own, accumulate)
        feed = partial(drawn.batches, device=CPU, workers=1)
        teacher = made.run(feed, CPU, lambda *_: None)
        if processes.rank() == 0:
            save_weights(own / "model.safetensors", teacher, {})


if __name__ == "__main__":
    with processes.joined("cpu"):
        main(Path(sys.argv[1]), Path(sys.argv[2]))
