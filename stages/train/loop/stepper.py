"""One optimizer step: the micro-batches' losses, their gradients, and what moves the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from stages.labels.pseudo_labels import PseudoLabels
from stages.train import distributed
from stages.train.data.batch import ImageIds, TrainBatch
from stages.train.data.random_numbers import torch_seed
from stages.train.loop.checkpoint import Checkpoint
from stages.train.loop.divergence import LossWatch, diverged
from stages.train.step.discriminator import Features
from stages.train.step.parts import Learner
from stages.train.step.perturbations.base import Perturbation, StepLosses
from stages.train.step.schedule import Moment

DTYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""What autocast computes in where it deems it safe, by the name of the precision."""


class _Loss(nn.Module):
    """All that gradients go through, as the forward of one module."""

    def __init__(self, learner: Learner, perturbation: Perturbation) -> None:
        super().__init__()
        self.network = learner.student
        # In a tuple, so that what else learns is no part of this module.
        self._rest = (learner, perturbation)

    def forward(self, batch: TrainBatch, moment: Moment) -> StepLosses:
        learner, perturbation = self._rest
        return perturbation.step(learner, batch, moment)


@dataclass
class Stepper:
    """Takes the steps of one training; every process of it takes each.

    Attributes:
        learner: The student and what it learns from.
        perturbation: Makes the losses of a micro-batch.
        optimizer: Moves the weights.
        seed: Of the perturbations' random numbers.
        precision: A key of `DTYPES`; weights stay float32.
        accumulate: Micro-batches a step, each with an equal weight.
        clip_norm: Largest norm of the gradient of all weights together; longer ones are scaled.
        checkpoint: What a diverged training can be gone on from.
        device: Where the network is.
        watch: Knows when the loss explodes.
        scaler: Keeps float16 gradients from vanishing; does nothing in other precisions.
        last: The last micro-batch, and what the sources said of it.
    """

    learner: Learner
    perturbation: Perturbation
    optimizer: Optimizer
    seed: int
    precision: str
    accumulate: int
    clip_norm: float | None
    checkpoint: Checkpoint
    device: torch.device
    watch: LossWatch = field(default_factory=LossWatch)
    scaler: torch.amp.GradScaler = field(init=False)
    last: tuple[TrainBatch, Mapping[str, PseudoLabels]] = field(init=False)

    def __post_init__(self) -> None:
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "float16")
        self._loss = distributed.parallel(_Loss(self.learner, self.perturbation))

    def step(self, moment: Moment, batches: Iterator[TrainBatch]) -> dict[str, Tensor]:
        """Takes a step on the next `accumulate` micro-batches.

        Args:
            moment: Which step.
            batches: All that are left.

        Returns:
            The losses by name, ``loss/total`` first: means over this process's share.

        Raises:
            DivergedError: A loss or a gradient is not finite, or the loss explodes; the weights are
                what they were.
        """
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        seen: list[ImageIds] = []
        features: list[Features] = []
        for micro in range(self.accumulate):
            batch = next(batches)
            is_last = micro == self.accumulate - 1
            with nullcontext() if is_last else distributed.apart(self._loss):
                losses = self._backward(moment, micro, batch)
            for name, value in {"total": losses.total, **losses.terms}.items():
                share, key = value.detach() / self.accumulate, f"loss/{name}"
                sums[key] = sums.get(key, torch.zeros_like(share)) + share
            seen.append(batch.image_ids)
            if losses.features is not None:
                features.append(losses.features.detached())
        self._move(moment.step, seen)
        if self.learner.discriminator is not None:
            sums["loss/discriminator"] = self.learner.discriminator.update(features)
        return sums

    def _backward(self, moment: Moment, micro: int, batch: TrainBatch) -> StepLosses:
        """Adds the gradients of a micro-batch."""
        # So that a resumed step repeats itself, where a network draws random numbers of its own.
        torch.manual_seed(torch_seed(self.seed, moment.step * self.accumulate + micro))
        dtype = DTYPES[self.precision]
        with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
            losses: StepLosses = self._loss(batch, moment)
        self.last = (batch, losses.labels)
        total = losses.total.detach()
        if (fault := self.watch.fault(distributed.global_mean(total).item())) is not None:
            raise diverged(fault, moment.step, [batch.image_ids], self.checkpoint)
        scaled: Tensor = self.scaler.scale(losses.total / self.accumulate)
        scaled.backward()  # type: ignore[no-untyped-call]
        return losses

    def _move(self, number: int, seen: Sequence[ImageIds]) -> None:
        """Moves the weights by the gradients."""
        self.scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        limit = math.inf if self.clip_norm is None else self.clip_norm
        norm = clip_grad_norm_(parameters, limit).item()
        # Float16 gradients may overflow: the scaler leaves out the step, and scales less after it.
        if not math.isfinite(norm) and self.scaler.get_scale() <= 1:
            raise diverged(f"the gradient became {norm}", number, seen, self.checkpoint)
        self.scaler.step(self.optimizer)
        self.scaler.update()
