"""The interface of labelers: built once per worker, then called with batches of images."""

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
        proposals: SAM masks of each image, at its size; empty unless the labeler needs them.
        label_files: The label file of each image, (height, width) uint8 class ids, 255 = ignore;
            empty unless the labeler needs them.
        members: Stored labels of each of the labeler's members; empty if it has no members.
        originals: (3, H, W) uint8 RGB, each image as it was decoded, of any size; empty unless the
            labeler resizes images by itself.
    """

    pixels: Tensor
    sizes: tuple[tuple[int, int], ...]
    proposals: tuple[Proposals, ...] = ()
    label_files: tuple[Tensor, ...] = ()
    members: tuple[PseudoLabels, ...] = ()
    originals: tuple[Tensor, ...] = ()

    def fitted(self, index: int) -> Tensor:
        """(3, height, width) uint8: an image at the size of its label."""
        height, width = self.sizes[index]
        return self.pixels[index, :, :height, :width]

    def original(self, index: int) -> Tensor:
        """(3, H, W) uint8: an image as it was decoded, or at the size of its label if unknown."""
        return self.originals[index] if self.originals else self.fitted(index)

    def place(self, labels: Iterable[tuple[Tensor, Tensor]], device: torch.device) -> PseudoLabels:
        """Puts labels on canvases (B, S, S), with ignore and confidence 0 outside the images.

        Args:
            labels: (H, W) mask and (H, W) confidence of each image in order, at the image's size.
            device: The device of the labels.
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
    """Labels the pixels of images without the student.

    Construction is cheap; `load` reads weights and is called once per worker, before `label`. The
    defaults are those of a labeler without weights and without texts.

    Attributes:
        needs_proposals: Whether batches must have SAM masks, which the stage propose makes.
        needs_label_files: Whether batches must have the images' label files.
        libraries: Packages whose versions may change the labels.

    Args:
        config: The labeler's own keys, an instance of its `Config`.
        vocabulary: The classes.
    """

    needs_proposals: ClassVar[bool] = False
    needs_label_files: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ("torch",)

    def __init__(self, config: Section, vocabulary: Vocabulary) -> None:
        self.config = config
        self.vocabulary = vocabulary

    @property
    def resizes(self) -> bool:
        """Whether it resizes images by itself, so that batches must have `originals`.

        Such a labeler would see an image resized twice, which published recipes do not do. It
        brings its scores to the size of the label. Default: no.
        """
        return False

    @property
    def members(self) -> tuple[str, ...]:
        """Labelers of the section whose stored labels batches must have, in this order."""
        return ()

    def weights_facts(self) -> Facts:
        """The weights that the labels depend on: a tag, or the checksum of a local file.

        Must not import torch. Default: no weights.

        Raises:
            WeightsError: A local file is missing.
        """
        return {}

    def versions(self) -> dict[str, str]:
        """Versions of what is read that are no facts, by name: the commit of a branch.

        They are recorded with the labels, and labels of two versions are not mixed. Must not import
        torch, nor ask a server. Default: none.
        """
        return {}

    def vocabulary_facts(self) -> Facts:
        """The parts of the vocabulary that the labels depend on. Default: class names, no texts.

        Raises:
            ConfigError: The labeler cannot use this vocabulary.
        """
        return self.vocabulary.class_facts()

    def shows(self) -> frozenset[int] | None:
        """The classes that its labels can show; None, the default, if any may occur."""
        return None

    def check_packages(self) -> None:
        """Refuses to work without an optional library. Must not import it. Default: needs none.

        Raises:
            ConfigError: It is not installed on this machine.
        """

    def rehearse(self, *, downloads: bool) -> None:
        """Refuses what only torch can tell before any image is labeled. Default: nothing.

        Args:
            downloads: Whether the weights were fetched; without them only local files can be read.

        Raises:
            ConfigError: The keys ask the model for what it cannot do.
            WeightsError: The weights cannot be read, or belong to another model.
        """

    def warnings(self) -> list[str]:
        """Reasons not to trust the labels, one line each. Default: none."""
        return []

    def fetch(self, console: Console) -> None:
        """Downloads the files that `load` reads, if they are not on this machine yet.

        Args:
            console: Shows the download; `load` runs on a worker, which has no console.

        Raises:
            WeightsError: A file cannot be downloaded, or differs from the published one.
        """

    def load(self, device: torch.device, cache: Path | None = None) -> None:
        """Reads the weights.

        Args:
            device: The device to label on.
            cache: A folder of the run, shared by workers, for results that are slow to compute;
                None caches nothing.

        Raises:
            WeightsError: A file is missing, cannot be downloaded, or belongs to another model.
        """

    def __call__(self, images: ImageBatch) -> PseudoLabels:
        """Labels a batch by `label`, and checks the labels: the way in which stages ask a labeler.

        Raises:
            NotFiniteError: A confidence is NaN or infinite.
        """
        from stages.models.finite import finite_scores

        labels = self.label(images)
        finite_scores(labels.confidence)
        return labels

    @abstractmethod
    def label(self, images: ImageBatch) -> PseudoLabels:
        """Labels a batch; an image gets the same label in any batch.

        Returns:
            Labels on the same canvases, (B, S, S); 255 with confidence 0 outside the image.
        """
