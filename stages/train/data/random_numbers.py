"""Random numbers that depend only on a seed, a purpose and a position.

They depend neither on earlier steps, nor on the order of the draws, nor on the number of processes
that share a batch. A resumed training therefore needs no saved generator state, and threads that
read ahead cannot change a result.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import torch
from torch import Generator, Tensor


def torch_seed(*numbers: int) -> int:
    """A 32-bit seed computed from several numbers; torch ignores the upper bits of longer seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def generator(seed: int, purpose: str, position: int) -> Generator:
    """A CPU generator for a training's seed, a purpose and a position within that purpose."""
    return Generator().manual_seed(torch_seed(seed, crc32(purpose.encode()), position))


@dataclass(frozen=True)
class StepRandom:
    """The random numbers of one step.

    Attributes:
        seed: Seed of the training.
        step: The step, from 0; with several micro-batches a step, the micro-batch.
        rows: Rows of the step's whole batch that this process has, the same for each role.
        batch_size: Images of each role in the whole batch.
    """

    seed: int
    step: int
    rows: Sequence[int]
    batch_size: int

    def of_step(self, purpose: str) -> Generator:
        """A generator that all images of the step share."""
        return generator(self.seed, purpose, self.step)

    def of_images(self, purpose: str, draw: Callable[[Generator], Tensor]) -> Tensor:
        """Random numbers drawn separately for each image.

        Args:
            purpose: What the numbers are for; the same purpose gives the same numbers.
            draw: Draws the numbers of one image.

        Returns:
            (B, ...) the numbers of each image of this process.
        """
        first = self.step * self.batch_size
        return torch.stack([draw(generator(self.seed, purpose, first + row)) for row in self.rows])
