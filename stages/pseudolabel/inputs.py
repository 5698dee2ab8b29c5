"""Inputs of a labeler: images on canvases, and SAM masks or label files where it needs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.config.vocabulary import Vocabulary
from pipeline.images import images
from pipeline.images.faults import UnreadableImageError
from pipeline.records.rows import ImageRow
from stages.labels.images import decoded_pixels, fitted_mask, read_ahead
from stages.propose.output import Proposals, ProposalsByImage, read_proposals
from stages.pseudolabel.labelers.base import ImageBatch
from stages.pseudolabel.stored_labels import StoredLabels

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class LabelerInput:
    """One image, ready to be labeled.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, scaled to the canvas.
        original: (H, W, 3) uint8 RGB as decoded, if the labeler resizes images by itself.
        proposals: The image's SAM masks, if the labeler needs them.
        label_file: (H, W) uint8 class ids, 255 = ignore, if the labeler needs them.
        members: For each member a (H, W) int64 mask, 255 = ignore, and a (H, W) float confidence.
    """

    pixels: Bytes
    proposals: Proposals | None = None
    label_file: Bytes | None = None
    members: tuple[tuple[Tensor, Tensor], ...] = ()
    original: Bytes | None = None


@dataclass(frozen=True)
class InputReader:
    """Reads the images of a shard.

    Attributes:
        size_px: Side of the canvas.
        max_side_px: Bound of the long side of images as decoded, if the labeler needs them.
        proposals: The shard's part of the proposals manifest, if the labeler needs masks.
        vocabulary: The classes of the label files, if the labeler needs those.
        members: Stored labels of the labeler's members for the shard, by name.
    """

    size_px: int
    max_side_px: int | None = None
    proposals: Path | None = None
    vocabulary: Vocabulary | None = None
    members: Mapping[str, StoredLabels] = field(default_factory=dict)

    def read(self, rows: Sequence[ImageRow]) -> Iterator[LabelerInput | UnreadableImageError]:
        """Yields the input of each image in order, or the error if it cannot be read.

        Raises:
            StorageError: The part of the proposals or a member's labels are missing or damaged.
        """
        proposals = None if self.proposals is None else read_proposals(self.proposals)
        return read_ahead(lambda row: self._read_one(row, proposals), rows)

    def _read_one(self, row: ImageRow, proposals: ProposalsByImage | None) -> LabelerInput:
        decoded = decoded_pixels(row)
        pixels = images.fit(decoded, self.size_px)
        size = (pixels.shape[0], pixels.shape[1])
        own = None if proposals is None else proposals.get((row["row"], row["image_id"]))
        if proposals is not None and (own is None or own.size != size):
            what = "no SAM masks for the current version of this image; run `propose`"
            raise UnreadableImageError(what)
        label = None if self.vocabulary is None else fitted_mask(row, *size, self.vocabulary)
        members = []
        for name, stored in self.members.items():
            found = stored.read(row, size)
            if found is None:
                what = f"labeler {name} has no label for the current version of this image"
                raise UnreadableImageError(what)
            members.append(found)
        original = None if self.max_side_px is None else bounded(decoded, self.max_side_px)
        return LabelerInput(pixels, own, label, tuple(members), original)


def bounded(pixels: Bytes, max_side_px: int) -> Bytes:
    """An image, (H, W, 3), reduced to a longest side if it is larger."""
    return images.fit(pixels, max_side_px) if max(pixels.shape[:2]) > max_side_px else pixels


def batch_of(inputs: Sequence[LabelerInput], size_px: int) -> ImageBatch:
    """Inputs as a batch on canvases (B, 3, size_px, size_px)."""
    canvases = torch.zeros(len(inputs), 3, size_px, size_px, dtype=torch.uint8)
    for canvas, item in zip(canvases, inputs, strict=True):
        height, width = item.pixels.shape[:2]
        canvas[:, :height, :width] = _as_tensor(item.pixels)
    batch = ImageBatch(
        canvases,
        tuple((item.pixels.shape[0], item.pixels.shape[1]) for item in inputs),
        tuple(item.proposals for item in inputs if item.proposals is not None),
        tuple(
            torch.from_numpy(item.label_file.copy())
            for item in inputs
            if item.label_file is not None
        ),
        originals=tuple(_as_tensor(item.original) for item in inputs if item.original is not None),
    )
    by_member = zip(*(item.members for item in inputs), strict=True)
    members = tuple(batch.place(labels, canvases.device) for labels in by_member)
    return replace(batch, members=members)


def _as_tensor(pixels: Bytes) -> Tensor:
    """(H, W, 3) as (3, H, W)."""
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)
