"""Runs of training loops that end early."""

import os
import signal
from collections.abc import Callable, Iterator
from threading import Event

from pipeline import stopping
from stages.train.data.batch import TrainBatch
from stages.train.loop.loop import TrainingLoop
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


def stopped_at(step: int, draw: Draw) -> Draw:
    """Batches during one of which Ctrl-C comes; it is seen after that step."""

    def drawn(steps: range) -> Iterator[TrainBatch]:
        for number, batch in zip(steps, draw(steps), strict=True):
            if number == step:
                os.kill(os.getpid(), signal.SIGINT)
                while not stopping.asked():
                    Event().wait(0.001)
            yield batch

    return drawn


def run_stopped(loop: TrainingLoop, step: int, draw: Draw) -> None:
    """Runs a loop as the command line does, with Ctrl-C in a step."""
    with stopping.on_signals(lambda _: None):
        loop.run(stopped_at(step, draw))
