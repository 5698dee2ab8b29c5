"""Random numbers as a function of what they are for.

Nothing depends on the steps before, on who draws first, or on how many processes share a batch: so
resuming needs no state of generators, and threads cannot change a result.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import torch
from torch import Generator, Tensor


def torch_seed(*numbers: int) -> int:
    """A seed for torch of several numbers; of a larger one than 32 bits it drops the upper."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def generator(seed: int, purpose: str, position: int) -> Generator:
    """Random numbers on the CPU, of a training's seed, a purpose and a position within it."""
    return Generator().manual_seed(torch_seed(seed, crc32(purpose.encode()), position))


@dataclass(frozen=True)
class Draws:
    """The random numbers of one step.

    Attributes:
        seed: Of the training.
        step: The step, from 0; a micro-batch is a step here, where a training has several.
        images: Positions, in the step's whole batch, of the images that this process has, of each
            role.
        total: Number of images of the whole batch, of each role.
    """

    seed: int
    step: int
    images: Sequence[int]
    total: int

    def of_step(self, purpose: str) -> Generator:
        """Random numbers that all images share."""
        return generator(self.seed, purpose, self.step)

    def of_images(self, purpose: str, draw: Callable[[Generator], Tensor]) -> Tensor:
        """Random numbers of each image's own.

        Args:
            purpose: What they are for; the same purpose gives the same numbers.
            draw: Draws those of one image.

        Returns:
            (B, ...) what was drawn for each image of this process.
        """
        first = self.step * self.total
        return torch.stack(
            [draw(generator(self.seed, purpose, first + place)) for place in self.images]
        )
