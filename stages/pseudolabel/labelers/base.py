"""What every labeler is: built once a worker, then asked for batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from pipeline.components import Component
from pipeline.section import Facts, Section

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from pipeline.console import Console
    from pipeline.vocabulary import Vocabulary
    from stages.pseudolabel.pseudo_labels import ImageBatch, PseudoLabels


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
