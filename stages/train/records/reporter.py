"""The reporter of a training: writes its log and TensorBoard events, and shows its progress."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from stages.labels.pseudo_labels import PseudoLabels
from stages.models.segmenters.networks.base import SegmentationNetwork
from stages.train import distributed
from stages.train.data.batch import TrainBatch
from stages.train.records.example_pictures import ExamplePictures
from stages.train.records.training_log import TrainingLog

ShowProgress = Callable[[int, Mapping[str, float]], None]
"""Shows the number of steps done and the values of the last logged step; {} at the start."""


@dataclass(frozen=True)
class StepRecord:
    """The result of one optimizer step.

    Attributes:
        losses: Scalars by name, ``loss/total`` first: means over this process's share.
        rate: The base learning rate.
        batch: The last micro-batch.
        labels: The labels of its weak views by source; the confidence is the weight of the pixel.
    """

    losses: Mapping[str, Tensor]
    rate: float
    batch: TrainBatch
    labels: Mapping[str, PseudoLabels]


@dataclass(frozen=True)
class TrainingReporter:
    """Records one training. Every process has a reporter; only the leader's shows pictures.

    Attributes:
        log: JSON lines.
        show_progress: Called at the start and at every log line.
        log_every: Steps between log lines.
        steps: Length of the training; the last step has a log line.
        pictures: Writes for TensorBoard; None in processes that follow.
    """

    log: TrainingLog
    show_progress: ShowProgress
    log_every: int
    steps: int
    pictures: ExamplePictures | None

    def begin(self, done: int) -> None:
        """Records that the training continues after `done` steps."""
        self.show_progress(done, {})

    def step(self, done: int, record: StepRecord, student: SegmentationNetwork) -> None:
        """Records a step.

        Args:
            done: Number of steps that are done.
            record: The result of the last one.
            student: The student; keeps its mode.
        """
        if done % self.log_every == 0 or done == self.steps:
            losses = record.losses.items()
            values = {name: distributed.global_mean(loss).item() for name, loss in losses}
            values["learning_rate"] = record.rate
            if self.pictures is not None:
                values |= self.pictures.label_metrics(record.batch, record.labels)
                self.pictures.events.scalars(done, values)
            self.log.append(json.dumps({"step": done, **values}))
            self.show_progress(done, values)
        if self.pictures is not None and self.pictures.is_due(done):
            self.pictures.draw(done, record.batch, record.labels, student)

    def validation(self, done: int, scores: Mapping[str, float]) -> None:
        """Records the scores on val of the weights after `done` steps."""
        self.log.append(json.dumps({"step": done, "split": "val", **scores}))
        if self.pictures is not None:
            named = {f"val/{name}": value for name, value in scores.items()}
            self.pictures.events.scalars(done, named)

    def flush(self) -> None:
        """Stores everything; called before a checkpoint is saved, so that nothing is missing."""
        self.log.flush()
        if self.pictures is not None:
            self.pictures.events.flush()

    def close(self) -> None:
        """Flushes, and closes the event files."""
        try:
            self.log.flush()
        finally:
            if self.pictures is not None:
                self.pictures.events.close()
