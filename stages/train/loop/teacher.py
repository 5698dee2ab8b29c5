"""The mean teacher: an exponential moving average of the student (arXiv 1703.01780)."""

import torch
from torch import nn


def decay(step: int, limit: float) -> float:
    """The share of itself that the teacher keeps after a step: ``min(1 - 1 / (step + 1), limit)``.

    During the first steps the teacher is the mean of all students so far, without its own random
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
        teacher: A copy of the student, from `frozen_copy`.
        student: The network being trained.
        keep: Share of itself that the teacher keeps, from `decay`.
    """
    mine = [*teacher.parameters(), *teacher.buffers()]
    theirs = [*student.parameters(), *student.buffers()]
    for old, new in zip(mine, theirs, strict=True):
        if old.is_floating_point():
            old.lerp_(new, 1 - keep)
        else:
            old.copy_(new)
