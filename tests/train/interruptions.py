"""Runs of training loops that end early."""

from collections.abc import Callable, Iterator

from stages.train.data.batch import TrainBatch
from tests.train.training_loops import LoopInFolder

Draw = Callable[[range], Iterator[TrainBatch]]
BuildLoop = Callable[..., LoopInFolder]


class Killed(Exception):
    """Stands for the end of a process."""


def dying_at(step: int, draw: Draw) -> Draw:
    """Batches up to a step, then the end."""

    def drawn(steps: range) -> Iterator[TrainBatch]:
        for number, batch in zip(steps, draw(steps), strict=True):
            if number == step:
                raise Killed
            yield batch

    return drawn
