"""The learning rate over a training: polynomial decay, as every published method here uses it."""

import math


def poly(base: float, step: int, total: int, power: float = 0.9) -> float:
    """The polynomial decay ``base * (1 - step / total) ** power`` (ParseNet, arXiv 1506.04579)."""
    return base * math.pow(1 - step / total, power)


def learning_rate(base: float, step: int, total: int) -> float:
    """The rate of one step: the decay of the step before.

    UniMatch and its successors write the new rate after each step, so that steps 0 and 1 both run
    at the base rate; done the same way here for parity.

    Args:
        base: Rate at the start.
        step: The step about to be taken, from 0 to `total` - 1.
        total: Number of steps of the whole training.
    """
    return poly(base, max(step - 1, 0), total)
