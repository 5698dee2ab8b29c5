"""What is told of a training step by step: to the log, to TensorBoard, to whoever waits for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from stages.labels.pseudo_labels import PseudoLabels
from stages.models.segmenters.networks.base import SegmentationNetwork
from stages.train import distributed
from stages.train.data.batch import TrainBatch
from stages.train.records.example_pictures import Watching
from stages.train.records.training_log import TrainingLog

Tell = Callable[[int, dict[str, float]], None]
"""Takes the number of steps done and the numbers of the last one."""


@dataclass(frozen=True)
class Chronicle:
    """Tells of one training; every process of it has one, and only the first one's is watched.

    Attributes:
        log: JSON lines.
        tell: Hears what the log's lines of steps say.
        log_every: Steps between these.
        steps: Length of the training; its last step has a line.
        watching: Shows all of it in TensorBoard; None where nobody watches.
    """

    log: TrainingLog
    tell: Tell
    log_every: int
    steps: int
    watching: Watching | None

    def begun(self, done: int) -> None:
        """The training goes on after `done` steps."""
        self.tell(done, {})

    def stepped(
        self,
        done: int,
        losses: Mapping[str, Tensor],
        rate: float,
        seen: tuple[TrainBatch, Mapping[str, PseudoLabels]],
        network: SegmentationNetwork,
    ) -> None:
        """A step was taken.

        Args:
            done: Steps that are.
            losses: This process's, by name.
            rate: The base rate.
            seen: The step's last micro-batch, and what the sources said of it.
            network: The student.
        """
        if done % self.log_every == 0 or done == self.steps:
            values = {name: distributed.global_mean(loss).item() for name, loss in losses.items()}
            values["learning_rate"] = rate
            if self.watching is not None:
                values |= self.watching.measure(*seen)
                self.watching.scalars(done, values)
            self.log.append(json.dumps({"step": done, **values}))
            self.tell(done, values)
        if self.watching is not None and self.watching.is_due(done):
            self.watching.show(done, *seen, network)

    def validated(self, done: int, scores: Mapping[str, float]) -> None:
        """The weights of `done` steps were scored on val."""
        self.log.append(json.dumps({"step": done, "split": "val", **scores}))
        if self.watching is not None:
            self.watching.scalars(done, {f"val/{name}": value for name, value in scores.items()})

    def flush(self) -> None:
        """Has all stored; to be called before a checkpoint is saved, so that nothing is missing."""
        self.log.flush()
        if self.watching is not None:
            self.watching.flush()

    def close(self) -> None:
        """Flushes, and ends."""
        try:
            self.log.flush()
        finally:
            if self.watching is not None:
                self.watching.close()
