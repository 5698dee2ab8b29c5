"""The training loop. There is one, and it knows no method by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from pipeline.errors import ConfigError, StorageError
from stages.models.segmenters.networks.base import SegmentationNetwork
from stages.train import distributed
from stages.train.data.batch import TrainBatch
from stages.train.loop import teacher
from stages.train.loop.checkpoint import Checkpoint, Stateful
from stages.train.loop.divergence import diverged
from stages.train.loop.stepper import Stepper
from stages.train.loop.validation import Validation
from stages.train.records.example_pictures import Watching
from stages.train.records.reporter import Chronicle, Tell
from stages.train.records.training_log import TrainingLog
from stages.train.step.discriminator import Discriminator
from stages.train.step.label_sources.base import LabelSource
from stages.train.step.parts import Learner
from stages.train.step.perturbations.base import Perturbation
from stages.train.step.schedule import Moment, learning_rate
from stages.train.step.supervised_losses.base import SupervisedLoss


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
        precision: float32, or bfloat16 or float16 where autocast deems it safe; weights stay
            float32.
        accumulate: Micro-batches a step.
        clip_norm: Largest norm of the gradient; None: any.
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
    accumulate: int = 1
    clip_norm: float | None = None
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
class _Sources:
    """The state of all label sources, by name."""

    sources: Sequence[LabelSource]
    network: SegmentationNetwork

    def state_dict(self) -> dict[str, Any]:
        return {source.name: source.state() for source in self.sources}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for source in self.sources:
            source.restore(state[source.name], self.network)


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
        checkpoint: Where the state is kept.
        log: JSON lines, one every `log_every` steps: step, losses, rate; and one a validation. Part
            of the state.
        checkpoint_every: Steps between checkpoints.
        log_every: Steps between log lines.
        steps_an_epoch: Steps that see as many images as there are.
        validation: Scores the teacher on val now and then; None: never.
        watch: Opens what watches it, after the number of steps that are done; None: nobody does.
    """

    network: SegmentationNetwork
    perturbation: Perturbation
    sources: Sequence[LabelSource]
    supervised_loss: SupervisedLoss
    discriminator: Discriminator | None
    optimization: Optimization
    checkpoint: Checkpoint
    log: TrainingLog
    checkpoint_every: int
    log_every: int
    steps_an_epoch: int
    validation: Validation | None = None
    watch: Callable[[int], Watching] | None = None

    def run(
        self,
        batches: Callable[[range], Iterator[TrainBatch]],
        device: torch.device,
        tell: Tell,
    ) -> SegmentationNetwork:
        """Trains to the end, from the last checkpoint where there is one.

        Args:
            batches: The micro-batches of a range of them, in order; see `Optimization.accumulate`.
            device: Where the network is.
            tell: Called with the number of steps done, at the start and at every log line.

        Returns:
            The teacher: the network to evaluate.

        Raises:
            DivergedError: The loss is not finite, or explodes; names the step and its images.
            StorageError: The processes do not find the same checkpoint.
        """
        settings = self.optimization
        ema = teacher.frozen_copy(self.network)
        stepper = self._stepper(ema, device)
        parts = self._parts(ema, stepper)
        start = self.checkpoint.load(parts, device)
        self._compare(start)
        self.log.begin()
        with closing(self._chronicle(start, tell)) as chronicle:
            chronicle.begun(start)
            micro = settings.accumulate
            feed = batches(range(start * micro, settings.steps * micro))
            for step in range(start, settings.steps):
                rate = learning_rate(settings.learning_rate, step, settings.steps)
                for group in stepper.optimizer.param_groups:
                    group["lr"] = rate * group["multiplier"]
                moment = Moment(step, settings.steps, self.steps_an_epoch)
                losses = stepper.step(moment, feed)
                teacher.update(ema, self.network, teacher.decay(step, settings.ema_decay))
                done = step + 1
                chronicle.stepped(done, losses, rate, stepper.last, self.network)
                if self.validation is not None and self.validation.is_due(done, settings.steps):
                    chronicle.validated(done, self._validate(self.validation, ema, done))
                if done % self.checkpoint_every == 0:
                    chronicle.flush()
                    self._save(done, parts, ema)
            next(feed, None)  # lets its threads end
        return ema

    def _chronicle(self, start: int, tell: Tell) -> Chronicle:
        watching = None if self.watch is None else self.watch(start)
        steps = self.optimization.steps
        return Chronicle(self.log, tell, self.log_every, steps, watching)

    def _stepper(self, ema: SegmentationNetwork, device: torch.device) -> Stepper:
        settings = self.optimization
        return Stepper(
            learner=Learner(
                self.network, ema, self.sources, self.supervised_loss, self.discriminator
            ),
            perturbation=self.perturbation,
            optimizer=settings.build(self.network),
            seed=settings.seed,
            precision=settings.precision,
            accumulate=settings.accumulate,
            clip_norm=settings.clip_norm,
            checkpoint=self.checkpoint,
            device=device,
        )

    def _parts(self, ema: SegmentationNetwork, stepper: Stepper) -> dict[str, Stateful]:
        """All that a training goes on from."""
        parts: dict[str, Stateful] = {
            "network": self.network,
            "teacher": ema,
            "optimizer": stepper.optimizer,
            "scaler": stepper.scaler,
            "watch": stepper.watch,
            "sources": _Sources(self.sources, self.network),
            "log": self.log,
        }
        if self.discriminator is not None:
            parts["discriminator"] = self.discriminator
        return parts if self.validation is None else {**parts, "validation": self.validation}

    def _validate(
        self, validation: Validation, ema: SegmentationNetwork, done: int
    ) -> dict[str, float]:
        scores, improved = validation.run(ema)
        for source in self.sources:
            source.validated(ema, is_best=improved, epoch=done // self.steps_an_epoch)
        return scores

    def _save(self, done: int, parts: Mapping[str, Stateful], ema: SegmentationNetwork) -> None:
        """Saves the state, unless it is one that nobody wants to go on from."""
        if not (_is_finite(self.network) and _is_finite(ema)):
            raise diverged("weights are not finite", done - 1, [], self.checkpoint)
        if distributed.rank() == 0:
            self.checkpoint.save(done, parts)

    def _compare(self, start: int) -> None:
        starts = distributed.gathered(start)
        if len({*starts}) > 1:
            what = f"the processes would go on after steps {', '.join(map(str, starts))}"
            fix = "give all machines the same workspace"
            raise StorageError(what, where=str(self.checkpoint.path), fix=fix)


def _is_finite(network: nn.Module) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in network.state_dict().values())
