"""Base class of all supervised losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from pipeline.config.components import Component
from pipeline.config.config_section import Section

if TYPE_CHECKING:
    from torch import Tensor


class SupervisedLoss(Component, ABC):
    """Compares logits with hand-made masks.

    Args:
        config: Its keys, an instance of its `Config`.
    """

    def __init__(self, config: Section) -> None:
        self.config = config

    @abstractmethod
    def measure(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            logits: (B, C, H, W) float.
            mask: (B, H, W) int64 class ids below C, 255 = ignore.

        Returns:
            Scalar; 0 with a zero gradient if every pixel is ignored.
        """
