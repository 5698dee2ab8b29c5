"""The training loop. There is one, and it knows no method by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pipeline import stopping
from pipeline.errors import StorageError
from pipeline.stopping import Stopped
from stages.models.finite import not_finite
from stages.models.segmenters.networks.base import SegmentationNetwork
from stages.train import distributed
from stages.train.config import VariantConfig
from stages.train.data.batch import ImageIds, TrainBatch
from stages.train.data.random_numbers import torch_seed
from stages.train.loop import teacher
from stages.train.loop.checkpoint import Checkpoint, Stateful
from stages.train.loop.divergence import LossWatch, diverged
from stages.train.loop.optimizer import OptimizerStep
from stages.train.loop.validation import Validation
from stages.train.records.reporter import StepRecord, TrainingReporter
from stages.train.records.training_log import TrainingLog
from stages.train.step.discriminator import Features
from stages.train.step.label_sources.base import LabelSource
from stages.train.step.parts import TrainingParts
from stages.train.step.schedule import StepPosition, learning_rate
from stages.train.step.step import StepLosses, training_step

DTYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""The autocast type of each precision."""


class _StepModule(nn.Module):
    """The training step as the forward of one module, through which all gradients flow.

    DDP averages the gradients of such a module over the processes.
    """

    def __init__(self, parts: TrainingParts) -> None:
        super().__init__()
        self.student = parts.student
        self._parts = (parts,)  # in a tuple: the other networks are not parameters of this module

    def forward(self, batch: TrainBatch, position: StepPosition) -> StepLosses:
        return training_step(self._parts[0], batch, position)


@dataclass(frozen=True)
class _SourceStates:
    """The states of all label sources, by name."""

    sources: Sequence[LabelSource]
    student: SegmentationNetwork

    def state_dict(self) -> dict[str, Any]:
        return {source.name: source.state() for source in self.sources}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for source in self.sources:
            source.restore(state[source.name], self.student)


@dataclass
class TrainingLoop:
    """One training; every process of it has one and takes every step.

    Attributes:
        parts: The networks, and the sources of labels and losses.
        config: Learning rate, precision, accumulation and so on.
        seed: Seed of all random numbers.
        steps: Length of the training.
        steps_an_epoch: Steps that see as many images as there are of the first role.
        optimizer: Moves the weights of the student.
        checkpoint: The state on disk.
        log: JSON lines; part of the state.
        open_reporter: Opens what records the training, after the number of steps that are done.
        device: The device of the networks.
        validation: Scores the teacher on val; None: never.
    """

    parts: TrainingParts
    config: VariantConfig
    seed: int
    steps: int
    steps_an_epoch: int
    optimizer: OptimizerStep
    checkpoint: Checkpoint
    log: TrainingLog
    open_reporter: Callable[[int], TrainingReporter]
    device: torch.device
    validation: Validation | None = None
    _watch: LossWatch = field(default_factory=LossWatch, init=False)

    def __post_init__(self) -> None:
        self._step_module = distributed.ddp(_StepModule(self.parts))

    def run(self, batches: Callable[[range], Iterator[TrainBatch]]) -> None:
        """Trains to the end, from the last checkpoint if there is one.

        Args:
            batches: Yields the micro-batches of a range of them, in order.

        Raises:
            DivergedError: The loss is not finite or explodes; names the step and its images.
            StorageError: The processes found different checkpoints.
            Stopped: Something asked one of the processes to stop; the last step is saved.
        """
        config, parts = self.config, self.parts
        start = self.checkpoint.load(self._states)
        self._check_equal(start)
        self.log.begin()
        with closing(self.open_reporter(start)) as reporter:
            reporter.begin(start)
            micro = config.accumulate
            feed = batches(range(start * micro, self.steps * micro))
            is_pending = self.validation is not None and self.validation.is_pending(start)
            if is_pending and not self._validate(start, reporter):
                raise Stopped(f"step {start} of {self.steps} is saved")
            for step in range(start, self.steps):
                rate = learning_rate(config.learning_rate, step, self.steps)
                record = self._step(StepPosition(step, self.steps, self.steps_an_epoch), rate, feed)
                teacher.update(parts.teacher, parts.student, teacher.decay(step, config.ema_decay))
                done = step + 1
                reporter.step(done, record, parts.student)
                is_stopped = any(distributed.all_gather(stopping.asked()))
                is_stopped = is_stopped or not self._validate(done, reporter)
                if is_stopped or done % config.checkpoint_every == 0:
                    reporter.flush()
                    self._save(done)
                if is_stopped:
                    raise Stopped(f"step {done} of {self.steps} is saved")
            next(feed, None)  # lets its threads end
            self._check_finite(self.steps)

    def _step(self, position: StepPosition, rate: float, feed: Iterator[TrainBatch]) -> StepRecord:
        """Takes one optimizer step on the next `accumulate` micro-batches.

        Raises:
            DivergedError: A loss or gradient is not finite, or the loss explodes; then the weights
                have not moved.
        """
        count = self.config.accumulate
        means: dict[str, Tensor] = {}
        seen: list[ImageIds] = []
        features: list[Features] = []
        self.optimizer.begin(rate)
        for micro in range(count):
            batch = next(feed)
            is_last = micro == count - 1
            with nullcontext() if is_last else distributed.no_sync(self._step_module):
                losses = self._backward(position, micro, batch)
            for name, value in {"total": losses.total, **losses.terms}.items():
                share, key = value.detach() / count, f"loss/{name}"
                means[key] = means.get(key, torch.zeros_like(share)) + share
            seen.append(batch.image_ids)
            if losses.features is not None:
                features.append(losses.features.detached())
        if (fault := self.optimizer.step()) is not None:
            raise diverged(fault, position.step, seen, self.checkpoint)
        distributed.average_statistics(self.parts.student)
        if self.parts.discriminator is not None:
            means["loss/discriminator"] = self.parts.discriminator.update(features)
        return StepRecord(means, rate, batch, losses.labels)

    def _backward(self, position: StepPosition, micro: int, batch: TrainBatch) -> StepLosses:
        """Adds the gradient of a micro-batch, whose share of the step is one of `accumulate`."""
        # A network may draw random numbers of its own; this makes a resumed step repeat them.
        torch.manual_seed(torch_seed(self.seed, position.step * self.config.accumulate + micro))
        dtype = DTYPES[self.config.precision]
        with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
            losses: StepLosses = self._step_module(batch, position)
        loss = distributed.global_mean(losses.total.detach()).item()
        if (fault := self._watch.fault(loss)) is not None:
            raise diverged(fault, position.step, [batch.image_ids], self.checkpoint)
        self.optimizer.backward(losses.total / self.config.accumulate)
        return losses

    @property
    def _states(self) -> dict[str, Stateful]:
        """Everything that a training resumes from, by name."""
        states: dict[str, Stateful] = {
            "network": self.parts.student,
            "teacher": self.parts.teacher,
            "optimizer": self.optimizer.optimizer,
            "scaler": self.optimizer.scaler,
            "watch": self._watch,
            "sources": _SourceStates(self.parts.sources, self.parts.student),
            "log": self.log,
        }
        if self.parts.discriminator is not None:
            states["discriminator"] = self.parts.discriminator
        return states if self.validation is None else {**states, "validation": self.validation}

    def _validate(self, done: int, reporter: TrainingReporter) -> bool:
        """Validates where it is due; False if it was stopped, and is still to be done."""
        if self.validation is None or not self.validation.is_due(done, self.steps):
            return True
        self._check_finite(done)
        try:
            scores, is_best = self.validation.run(self.parts.teacher, done)
        except Stopped:
            return False
        for source in self.parts.sources:
            epoch = done // self.steps_an_epoch
            source.validated(self.parts.teacher, is_best=is_best, epoch=epoch)
        reporter.validation(done, scores)
        return True

    def _save(self, done: int) -> None:
        """Saves a checkpoint, unless weights are not finite."""
        self._check_finite(done)
        if distributed.rank() == 0:
            self.checkpoint.save(done, self._states)

    def _check_finite(self, done: int) -> None:
        """Ends the training in every process if weights of any of them are not finite."""
        networks = {"student": self.parts.student, "teacher": self.parts.teacher}
        own = not_finite({name: network.state_dict() for name, network in networks.items()})
        if any(distributed.all_gather(own is not None)):
            raise diverged("weights are not finite", done - 1, [], self.checkpoint)

    def _check_equal(self, start: int) -> None:
        """Ends the training in every process if they would go on from different states."""
        starts = distributed.all_gather(start)
        fix = "give all machines the same workspace and the same versions"
        where = str(self.checkpoint.path)
        if len({*starts}) > 1:
            steps = ", ".join(map(str, starts))
            what = f"the processes found checkpoints of different steps: {steps}"
            raise StorageError(what, where=where, fix=fix)
        if not distributed.agree({"student": self.parts.student, "teacher": self.parts.teacher}):
            what = f"the processes have different weights after step {start}"
            raise StorageError(what, where=where, fix=fix)
