"""Pseudo-labels and their images as tensors: one type for stored and online labels."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from pipeline.vocabulary import IGNORE
from stages.propose.output import Proposals


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

    @classmethod
    def on_canvases(
        cls, images: "ImageBatch", labels: Iterable[tuple[Tensor, Tensor]], device: torch.device
    ) -> "PseudoLabels":
        """Puts the labels of images on the canvases of a batch, with ignore beside them.

        Args:
            images: The batch.
            labels: Mask and confidence of each of its images in turn, of the image's size.
            device: Where they are.
        """
        count, _, *canvas = images.pixels.shape
        mask = torch.full((count, *canvas), IGNORE, device=device)
        confidence = torch.zeros(count, *canvas, device=device)
        for index, ((height, width), own) in enumerate(zip(images.sizes, labels, strict=True)):
            image = (index, slice(height), slice(width))
            mask[image], confidence[image] = own
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


@dataclass(frozen=True)
class ImageBatch:
    """Images of any shape on square canvases of side S, each at the top left.

    Attributes:
        pixels: (B, 3, S, S) uint8 RGB, 0 outside the image.
        sizes: (height, width) in pixels of each image; the longer one is S, the shorter at least 1.
        proposals: SAM's masks of each image, of its size; empty unless the labeler needs them.
        label_files: The label file of each image, (height, width) uint8 class ids, 255 = ignore;
            empty unless the labeler needs them.
        members: What each of the labeler's members stored for the batch; empty if it has none.
    """

    pixels: Tensor
    sizes: tuple[tuple[int, int], ...]
    proposals: tuple[Proposals, ...] = ()
    label_files: tuple[Tensor, ...] = ()
    members: tuple[PseudoLabels, ...] = ()
