"""What every labeler is: built once a worker, then asked for batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pipeline.config.components import Component
from pipeline.config.config_section import Facts, Section
from pipeline.config.vocabulary import IGNORE

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor

    from pipeline.config.vocabulary import Vocabulary
    from pipeline.console import Console
    from stages.labels.pseudo_labels import PseudoLabels
    from stages.propose.output import Proposals


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

    def place(self, labels: Iterable[tuple[Tensor, Tensor]], device: torch.device) -> PseudoLabels:
        """Puts labels of the images on canvases (B, S, S); ignore with confidence 0 beside them.

        Args:
            labels: (H, W) mask and (H, W) confidence of each image in turn, of the image's size.
            device: Where they are.
        """
        import torch

        from stages.labels.pseudo_labels import PseudoLabels

        count, _, *canvas = self.pixels.shape
        mask = torch.full((count, *canvas), IGNORE, device=device)
        confidence = torch.zeros(count, *canvas, device=device)
        for index, ((height, width), own) in enumerate(zip(self.sizes, labels, strict=True)):
            image = (index, slice(height), slice(width))
            mask[image], confidence[image] = own
        return PseudoLabels(mask, confidence)


class Labeler(Component, ABC):
    """Names the pixels of images without the student.

    Building one is cheap; `load` reads weights and is called once a worker, before `label`.

    Attributes:
        needs_proposals: Whether its batches must hold SAM's masks, made by the stage propose.
        needs_label_files: Whether they must hold the images' label files.

    Args:
        config: The labeler's own keys, an instance of its `Config`.
        vocabulary: The classes to tell apart.
    """

    needs_proposals: ClassVar[bool] = False
    needs_label_files: ClassVar[bool] = False

    def __init__(self, config: Section, vocabulary: Vocabulary) -> None:
        self.config = config
        self.vocabulary = vocabulary

    @property
    def members(self) -> tuple[str, ...]:
        """Labelers of the section whose stored labels its batches must hold, in this order."""
        return ()

    @abstractmethod
    def weights_facts(self) -> Facts:
        """Which weights the labels come from: tag, or checksum of a local file. No torch needed.

        Raises:
            WeightsError: A local file is missing.
        """

    def vocabulary_facts(self) -> Facts:
        """What of the vocabulary the labels depend on; here its texts too."""
        return self.vocabulary.prompt_facts()

    def warnings(self) -> list[str]:
        """What a user should know before trusting the labels; one line each, here none."""
        return []

    def fetch(self, console: Console) -> None:
        """Downloads what `load` will read, where it is not on this machine yet; here nothing.

        Args:
            console: Where to tell of it, which `load`, on a worker, cannot.

        Raises:
            WeightsError: It cannot be downloaded, or is not what was published.
        """

    def load(self, device: torch.device, cache: Path | None = None) -> None:
        """Reads the weights.

        Args:
            device: Where it will run.
            cache: A folder of the run, shared by workers, for what takes long and can be had again;
                without one nothing is kept.

        Raises:
            WeightsError: They are missing, cannot be downloaded, or belong to another model.
        """

    @abstractmethod
    def label(self, images: ImageBatch) -> PseudoLabels:
        """Labels a batch; an image gets the same label in any batch.

        Returns:
            Labels on the same canvases, (B, S, S); 255 with confidence 0 outside the image.
        """
