"""Schedules of the learning rate and of loss weights over a training."""

import math
from dataclasses import dataclass
from typing import Literal

Schedule = Literal["constant", "triangle", "linear_down"]


@dataclass(frozen=True)
class Length:
    """The length of a training, as far as the config tells it.

    Attributes:
        steps: Number of steps; None where it is given in epochs.
        epochs: Number of epochs; None where it is given in steps.
        validate_every: Steps, or "epoch", between validations; None: there are none.
    """

    steps: int | None
    epochs: int | None
    validate_every: int | Literal["epoch"] | None

    @property
    def has_early_validation(self) -> bool:
        """Whether there is a validation before the one after the last step."""
        if self.validate_every == "epoch":
            return self.epochs is None or self.epochs > 1
        if self.validate_every is None:
            return False
        return self.steps is None or self.validate_every < self.steps


@dataclass(frozen=True)
class StepPosition:
    """The position of a step within a training.

    Attributes:
        step: The step about to be taken, from 0 to `steps` - 1.
        steps: Number of steps of the whole training.
        steps_an_epoch: Steps that see as many images as there are of the first role.
    """

    step: int
    steps: int
    steps_an_epoch: int

    @property
    def epoch(self) -> int:
        """The epoch, from 0; the last epoch may be shorter."""
        return self.step // self.steps_an_epoch

    @property
    def epochs(self) -> int:
        """Number of epochs of the whole training, at least 1."""
        return math.ceil(self.steps / self.steps_an_epoch)


def weight(schedule: Schedule, position: StepPosition) -> float:
    """The share of its full weight that a loss has at a position, from 0 to 1.

    `triangle` rises over the first half of the epochs and falls over the rest, constant within an
    epoch (PrevMatch, arXiv 2405.20610). `linear_down` falls with each step, from 1 to almost 0 (the
    CLIP guidance of SemiVL, arXiv 2311.16241).
    """
    if schedule == "constant":
        return 1.0
    if schedule == "linear_down":
        return 1 - position.step / position.steps
    rising = position.epochs // 2
    if position.epoch < rising:
        return position.epoch / rising
    return 1 - (position.epoch - rising) / (position.epochs - rising)


def poly(base: float, step: int, total: int, power: float = 0.9) -> float:
    """The polynomial decay ``base * (1 - step / total) ** power`` (ParseNet, arXiv 1506.04579)."""
    return base * math.pow(1 - step / total, power)


def learning_rate(base: float, step: int, total: int) -> float:
    """The learning rate of a step: the decay of the step before it.

    UniMatch and its successors set the new rate after each step, so that steps 0 and 1 both run at
    the base rate. We do the same for parity.

    Args:
        base: Rate at the start.
        step: The step about to be taken, from 0 to `total` - 1.
        total: Number of steps of the whole training.
    """
    return poly(base, max(step - 1, 0), total)
