"""Pseudo-labels as tensors: one type for stored and online labels."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from pipeline.config.vocabulary import IGNORE


@dataclass(frozen=True)
class PseudoLabels:
    """A class and a confidence for every pixel of B images.

    Attributes:
        mask: (B, H, W) int64 class ids, 255 = ignore.
        confidence: (B, H, W) float32 in [0, 1]; 0 where the mask is ignore.
    """

    mask: Tensor
    confidence: Tensor

    @classmethod
    def from_logits(cls, logits: Tensor) -> "PseudoLabels":
        """The most likely class of each pixel and its probability, from (B, C, H, W) logits."""
        confidence, mask = logits.float().softmax(dim=1).max(dim=1)
        return cls(mask, confidence)

    def confident(self, threshold: float) -> "PseudoLabels":
        """Hard weights: confidence 1 where it is at least the threshold, 0 elsewhere."""
        return PseudoLabels(self.mask, (self.confidence >= threshold).float())

    def certain(self) -> "PseudoLabels":
        """Confidence 1 wherever there is a class."""
        return PseudoLabels(self.mask, (self.mask != IGNORE).float())

    def calibrated(self, maps: Tensor) -> "PseudoLabels":
        """Confidences by the maps of their classes.

        Args:
            maps: (C, 256) uint8: by class id the calibrated level of each stored one, 255 = 1.
        """
        is_ignore = self.mask == IGNORE
        level = (self.confidence * 255).round().long()
        found = maps.to(self.mask.device)[self.mask.masked_fill(is_ignore, 0), level]
        return PseudoLabels(self.mask, (found.float() / 255).masked_fill(is_ignore, 0))

    def pasted(self, other: Self, box: Tensor) -> "PseudoLabels":
        """These labels with the pixels inside a box taken from others (CutMix).

        Args:
            other: Labels of the images the pixels came from.
            box: (B, H, W) bool, True = take from `other`.
        """
        return PseudoLabels(
            torch.where(box, other.mask, self.mask),
            torch.where(box, other.confidence, self.confidence),
        )
