"""What a labeler is given: images on canvases, and masks or label files where it needs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline import images
from pipeline.overlay import resized
from pipeline.vocabulary import Vocabulary
from stages.propose.output import Proposals, read_proposals
from stages.pseudolabel.pseudo_labels import ImageBatch
from stages.reading import fitted_pixels, read_ahead

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class LabelerInput:
    """One image, ready to be labeled.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, fitted to the canvas.
        proposals: SAM's masks of it, where they were asked for.
        label_file: (H, W) uint8 class ids, 255 = ignore, likewise.
    """

    pixels: Bytes
    proposals: Proposals | None = None
    label_file: Bytes | None = None


@dataclass(frozen=True)
class InputReader:
    """Reads the images of a shard.

    Attributes:
        size_px: Side of the canvas.
        proposals: The shard's part of the proposals manifest, where the labeler needs masks.
        vocabulary: Reads the label files, where the labeler needs them.
    """

    size_px: int
    proposals: Path | None = None
    vocabulary: Vocabulary | None = None

    def read(
        self, rows: Sequence[dict[str, Any]]
    ) -> Iterator[LabelerInput | images.UnreadableImageError]:
        """What belongs to each images row, in order, or why it cannot be had.

        Raises:
            StorageError: The part of the proposals is missing or damaged.
        """
        proposals = None if self.proposals is None else read_proposals(self.proposals)
        return read_ahead(lambda row: self._read_one(row, proposals), rows)

    def _read_one(
        self, row: dict[str, Any], proposals: dict[int, Proposals] | None
    ) -> LabelerInput:
        pixels = fitted_pixels(row, self.size_px)
        size = pixels.shape[:2]
        own = None if proposals is None else proposals.get(row["row"])
        if proposals is not None and (own is None or own.size != size):
            raise images.UnreadableImageError("propose found no masks in it as it is now")
        label = None if self.vocabulary is None else _label_file(row, size, self.vocabulary)
        return LabelerInput(pixels, own, label)


def batch_of(inputs: Sequence[LabelerInput], size_px: int) -> ImageBatch:
    """Images on canvases of a side."""
    canvases = torch.zeros(len(inputs), 3, size_px, size_px, dtype=torch.uint8)
    for canvas, item in zip(canvases, inputs, strict=True):
        height, width = item.pixels.shape[:2]
        canvas[:, :height, :width] = torch.from_numpy(item.pixels.copy()).permute(2, 0, 1)
    return ImageBatch(
        canvases,
        tuple((item.pixels.shape[0], item.pixels.shape[1]) for item in inputs),
        tuple(item.proposals for item in inputs if item.proposals is not None),
        tuple(
            torch.from_numpy(item.label_file.copy())
            for item in inputs
            if item.label_file is not None
        ),
    )


def _label_file(row: dict[str, Any], size: tuple[int, ...], vocabulary: Vocabulary) -> Bytes:
    if row["mask_uri"] is None:
        raise images.UnreadableImageError("it has no label file")
    try:
        labels = images.decode_labels(images.read_bytes(row["mask_uri"], expected=row["mask_id"]))
    except images.UnreadableImageError as error:
        raise images.UnreadableImageError(f"its label file: {error}") from error
    mask, _ = vocabulary.to_mask(labels, row["label_scheme"])
    return resized(mask, size[0], size[1])
