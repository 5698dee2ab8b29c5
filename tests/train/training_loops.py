"""Training loops around networks of the tests."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.config.config_section import Facts
from stages.models.segmenters.networks.base import SegmentationNetwork
from stages.train import distributed
from stages.train.config import VariantConfig
from stages.train.loop.checkpoint import Checkpoint
from stages.train.loop.loop import TrainingLoop
from stages.train.loop.optimizer import OptimizerStep, build_optimizer
from stages.train.loop.validation import Validation
from stages.train.records.reporter import TrainingReporter
from stages.train.records.training_log import TrainingLog
from stages.train.step.parts import TrainingParts

CPU = torch.device("cpu")


@dataclass(frozen=True)
class LoopInFolder:
    """A training loop, the folder of its files, and the steps whose progress it showed."""

    loop: TrainingLoop
    folder: Path
    shown: list[int]

    @property
    def student(self) -> SegmentationNetwork:
        return self.loop.parts.student

    @property
    def teacher(self) -> SegmentationNetwork:
        return self.loop.parts.teacher

    @property
    def checkpoint(self) -> dict[str, Any]:
        """The state on disk."""
        state: dict[str, Any] = torch.load(self.loop.checkpoint.path, weights_only=True)
        return state

    def tensors(self) -> list[Tensor]:
        """Student, teacher, and the saved state of both and of the optimizer."""
        parts = self.checkpoint["parts"]
        moments = [entry["momentum_buffer"] for entry in parts["optimizer"]["state"].values()]
        saved = [*parts["network"].values(), *parts["teacher"].values(), *moments]
        return [*self.student.state_dict().values(), *self.teacher.state_dict().values(), *saved]


def loop_in_folder(
    folder: Path,
    parts: TrainingParts,
    config: VariantConfig,
    *,
    seed: int,
    facts: Facts,
    steps_an_epoch: int,
    validation: Validation | None = None,
    device: torch.device = CPU,
) -> LoopInFolder:
    """Builds a training loop that continues from a folder."""
    assert config.steps is not None
    shown: list[int] = []
    log = TrainingLog(folder / "log.jsonl", writes=distributed.rank() == 0)
    reporter = TrainingReporter(
        log, lambda done, values: shown.append(done), config.log_every, config.steps, pictures=None
    )
    loop = TrainingLoop(
        parts=parts,
        config=config,
        seed=seed,
        steps=config.steps,
        steps_an_epoch=steps_an_epoch,
        optimizer=OptimizerStep(build_optimizer(parts.student, config), config, device),
        checkpoint=Checkpoint(folder / "last.pt", facts),
        log=log,
        open_reporter=lambda start: reporter,
        device=device,
        validation=validation,
    )
    return LoopInFolder(loop, folder, shown)
