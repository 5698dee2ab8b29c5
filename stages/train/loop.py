"""The training loop. There is one, and it knows no method by name."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.optim import SGD, AdamW, Optimizer

from pipeline.errors import ConfigError, MaskmillError
from stages.segmenters.networks.base import SegmentationNetwork
from stages.train import teacher
from stages.train.batch import TrainBatch
from stages.train.checkpoint import Checkpoint
from stages.train.discriminator import Discriminator
from stages.train.label_sources.base import LabelSource
from stages.train.learner import Learner
from stages.train.log import TrainingLog
from stages.train.perturbations.base import Perturbation
from stages.train.schedule import Moment, learning_rate
from stages.train.supervised_losses.base import SupervisedLoss


@dataclass(frozen=True)
class Optimization:
    """How weights move.

    Attributes:
        optimizer: sgd (momentum 0.9) or adamw.
        learning_rate: Base rate.
        decoder_multiplier: The decoder's rate over the base rate.
        weight_decay: On all parameters, but see `decay_encoder_norms`.
        ema_decay: Largest share of itself that the teacher keeps a step.
        steps: Length of the training.
        seed: Of the perturbations' random numbers.
        precision: float32, or bfloat16 where autocast deems it safe; weights stay float32.
        encoder_multiplier: The encoder's rate over the base rate.
        layer_decay: The rate of one of the encoder's blocks over that of the block after it.
        decay_encoder_norms: Whether the encoder's normalization layers have weight decay.
    """

    optimizer: str
    learning_rate: float
    decoder_multiplier: float
    weight_decay: float
    ema_decay: float
    steps: int
    seed: int
    precision: str
    encoder_multiplier: float = 1.0
    layer_decay: float = 1.0
    decay_encoder_norms: bool = True

    def build(self, network: SegmentationNetwork) -> Optimizer:
        """The optimizer, with the groups of `SegmentationNetwork.parameter_groups`.

        Raises:
            ConfigError: The encoder has no blocks whose rates could decay.
        """
        if self.layer_decay != 1 and not network.encoder_blocks():
            what = "the encoder has no transformer blocks whose rates could decay"
            raise ConfigError(what, where="train.layer_decay", fix="leave it out")
        parts = network.parameter_groups(
            encoder_multiplier=self.encoder_multiplier,
            decoder_multiplier=self.decoder_multiplier,
            layer_decay=self.layer_decay,
            weight_decay=self.weight_decay,
            decay_encoder_norms=self.decay_encoder_norms,
        )
        groups = [dict(part) for part in parts]
        if self.optimizer == "sgd":
            return SGD(groups, self.learning_rate, momentum=0.9)
        return AdamW(groups, self.learning_rate)


@dataclass(frozen=True)
class Training:
    """One training variant, ready to go.

    Attributes:
        network: The student.
        perturbation: Makes the losses of a step.
        sources: Provide labels.
        supervised_loss: Of labeled crops.
        discriminator: Of features, if there is one.
        optimization: How weights move.
        steps_an_epoch: Length of an epoch.
        checkpoint: Where the state is kept.
        log: JSON lines, one every `log_every` steps: step, losses, rate.
        checkpoint_every: Steps between checkpoints.
        log_every: Steps between log lines.
    """

    network: SegmentationNetwork
    perturbation: Perturbation
    sources: Sequence[LabelSource]
    supervised_loss: SupervisedLoss
    discriminator: Discriminator | None
    optimization: Optimization
    steps_an_epoch: int
    checkpoint: Checkpoint
    log: Path
    checkpoint_every: int
    log_every: int

    def run(
        self,
        batches: Callable[[range], Iterator[TrainBatch]],
        device: torch.device,
        tell: Callable[[int, dict[str, float]], None],
    ) -> SegmentationNetwork:
        """Trains to the end, from the last checkpoint where there is one.

        Args:
            batches: The batches of a range of steps, in order.
            device: Where the network is.
            tell: Called with the number of steps done, at the start and at every log line.

        Returns:
            The teacher: the network to evaluate.

        Raises:
            MaskmillError: The loss is not finite; names the step.
        """
        ema = teacher.frozen_copy(self.network)
        optimizer = self.optimization.build(self.network)
        start = self.checkpoint.load(self.network, ema, optimizer, device)
        log = self._cut_log(start)
        tell(start, {})
        steps = range(start, self.optimization.steps)
        for step, batch in zip(steps, batches(steps), strict=True):
            measured = self._step(step, batch, ema, optimizer)
            share = teacher.decay(step, self.optimization.ema_decay)
            teacher.update(ema, self.network, share)
            done = step + 1
            if done % self.log_every == 0 or done == len(steps) + start:
                values = {name: float(value) for name, value in measured.items()}
                log.append(json.dumps({"step": done, **values}))
                tell(done, values)
            if done % self.checkpoint_every == 0:
                log.flush()
                self.checkpoint.save(done, self.network, ema, optimizer)
        log.flush()
        return ema

    def _step(
        self, step: int, batch: TrainBatch, ema: SegmentationNetwork, optimizer: Optimizer
    ) -> dict[str, torch.Tensor | float]:
        settings = self.optimization
        rate = learning_rate(settings.learning_rate, step, settings.steps)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["multiplier"]
        # So that a resumed step repeats itself. Of a larger seed torch would drop the upper bits.
        (seed,) = np.random.SeedSequence([settings.seed, step]).generate_state(1).tolist()
        torch.manual_seed(seed)
        measured: dict[str, torch.Tensor] = {}
        learner = Learner(self.network, ema, self.sources, self.supervised_loss, self.discriminator)
        moment = Moment(step, settings.steps, self.steps_an_epoch)
        is_reduced = settings.precision != "float32"
        with torch.autocast(batch.labeled.mask.device.type, torch.bfloat16, enabled=is_reduced):
            losses = self.perturbation.step(learner, batch, moment)
        if not math.isfinite(losses.total.item()):
            what = f"the loss became {losses.total.item()} in step {step}"
            fix = "lower train.learning_rate; the last checkpoint is kept"
            raise MaskmillError(what, where=str(self.checkpoint.path), fix=fix)
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if self.discriminator is not None and losses.features is not None:
            measured["loss/discriminator"] = self.discriminator.update(losses.features)
        terms = {f"loss/{name}": value.detach() for name, value in losses.terms.items()}
        return {"loss/total": losses.total.detach(), **terms, **measured, "learning_rate": rate}

    def _cut_log(self, start: int) -> TrainingLog:
        """The log without the lines of steps that will be done again."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= start]
        return TrainingLog(self.log, kept)
