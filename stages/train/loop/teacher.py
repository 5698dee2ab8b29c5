"""The mean teacher: an exponential moving average of the student (arXiv 1703.01780)."""

from copy import deepcopy
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def frozen_copy(student: M) -> M:
    """A copy that shares nothing with the student, in eval mode, without gradients."""
    return deepcopy(student).eval().requires_grad_(False)


def decay(step: int, limit: float) -> float:
    """The share of itself that the teacher keeps after a step: ``min(1 - 1 / (step + 1), limit)``.

    Over the first steps the teacher is the plain mean of its students, without its own random
    start: after step 0 it equals the student.

    Args:
        step: The step just taken, from 0.
        limit: Largest share; 0.996 in UniMatch V2 (arXiv 2410.10777), 0.99 in ClassMix.
    """
    return min(1 - 1 / (step + 1), limit)


@torch.no_grad()
def update(teacher: nn.Module, student: nn.Module, keep: float) -> None:
    """Moves the teacher towards the student, in place.

    Parameters and floating-point buffers (BatchNorm statistics) are averaged, other buffers
    (counters) copied.

    Args:
        teacher: A copy of the student, see `frozen_copy`.
        student: The network being trained.
        keep: Share of itself that the teacher keeps, see `decay`.
    """
    mine = [*teacher.parameters(), *teacher.buffers()]
    theirs = [*student.parameters(), *student.buffers()]
    for old, new in zip(mine, theirs, strict=True):
        if old.is_floating_point():
            old.lerp_(new, 1 - keep)
        else:
            old.copy_(new)
