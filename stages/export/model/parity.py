"""How far the results of an exported network are from those of the network itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import WeightsError

LIMIT = 1e-4
"""The largest difference of logits that is accepted, as a share of the largest logit or of 1."""
_SEED = 0

Size = tuple[int, int]


@dataclass(frozen=True)
class Parity:
    """The result of a comparison.

    Attributes:
        sizes: (height, width) of the images.
        difference: The largest difference of a logit.
        scale: The largest logit.
        changed: The share of pixels whose class differs.
    """

    sizes: Sequence[Size]
    difference: float
    scale: float
    changed: float

    def __str__(self) -> str:
        sizes = ", ".join(f"{width} x {height}" for height, width in self.sizes)
        return (
            f"largest difference of logits {self.difference:.1e} (they reach {self.scale:.1f}), "
            f"{self.changed:.2%} of pixels of another class; images of {sizes} px"
        )


def compare(
    network: Callable[[Tensor], Tensor], exported: Callable[[Tensor], Tensor], sizes: Sequence[Size]
) -> Parity:
    """Compares both on normalized random images, one and two at a time.

    Args:
        network: The network, in eval mode on the CPU.
        exported: What was exported.
        sizes: Sizes of images.

    Raises:
        WeightsError: They differ by more than `LIMIT`.
    """
    draw = torch.Generator().manual_seed(_SEED)
    difference = scale = 0.0
    changed = pixels = 0
    for count, (height, width) in enumerate(sizes, start=1):
        images = torch.randn(min(count, 2), 3, height, width, generator=draw)
        with torch.no_grad():
            expected, found = network(images), exported(images)
        difference = max(difference, (expected - found).abs().max().item())
        scale = max(scale, expected.abs().max().item())
        changed += int((expected.argmax(1) != found.argmax(1)).sum())
        pixels += images[:, 0].numel()
    parity = Parity(sizes, difference, scale, changed / pixels)
    if not difference <= LIMIT * max(1.0, scale):
        what = f"what was exported differs from the network: {parity}"
        raise WeightsError(what, where="export", fix="please report this network")
    return parity
