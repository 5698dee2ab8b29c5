"""What a labeler is given: images on canvases, and masks or label files where it needs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.config.vocabulary import Vocabulary
from pipeline.images import images
from pipeline.images.overlay import resized
from stages.labels.images import fitted_pixels, read_ahead
from stages.propose.output import Proposals, read_proposals
from stages.pseudolabel.labelers.base import ImageBatch
from stages.pseudolabel.stored_labels import StoredLabels

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class LabelerInput:
    """One image, ready to be labeled.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, fitted to the canvas.
        proposals: SAM's masks of it, where they were asked for.
        label_file: (H, W) uint8 class ids, 255 = ignore, likewise.
        members: Of each member a (H, W) int64 mask, 255 = ignore, and a (H, W) float confidence.
    """

    pixels: Bytes
    proposals: Proposals | None = None
    label_file: Bytes | None = None
    members: tuple[tuple[Tensor, Tensor], ...] = ()


@dataclass(frozen=True)
class InputReader:
    """Reads the images of a shard.

    Attributes:
        size_px: Side of the canvas.
        proposals: The shard's part of the proposals manifest, where the labeler needs masks.
        vocabulary: Reads the label files, where the labeler needs them.
        members: What the labeler's members stored for the shard, by their names.
    """

    size_px: int
    proposals: Path | None = None
    vocabulary: Vocabulary | None = None
    members: Mapping[str, StoredLabels] = field(default_factory=dict)

    def read(
        self, rows: Sequence[dict[str, Any]]
    ) -> Iterator[LabelerInput | images.UnreadableImageError]:
        """What belongs to each images row, in order, or why it cannot be had.

        Raises:
            StorageError: The part of the proposals is missing or damaged, or a member's labels.
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
        members = []
        for name, stored in self.members.items():
            found = stored.read(row["row"], (size[0], size[1]))
            if found is None:
                raise images.UnreadableImageError(f"{name} has no label of it as it is now")
            members.append(found)
        return LabelerInput(pixels, own, label, tuple(members))


def batch_of(inputs: Sequence[LabelerInput], size_px: int) -> ImageBatch:
    """Images on canvases of a side, with what belongs to them."""
    canvases = torch.zeros(len(inputs), 3, size_px, size_px, dtype=torch.uint8)
    for canvas, item in zip(canvases, inputs, strict=True):
        height, width = item.pixels.shape[:2]
        canvas[:, :height, :width] = torch.from_numpy(item.pixels.copy()).permute(2, 0, 1)
    batch = ImageBatch(
        canvases,
        tuple((item.pixels.shape[0], item.pixels.shape[1]) for item in inputs),
        tuple(item.proposals for item in inputs if item.proposals is not None),
        tuple(
            torch.from_numpy(item.label_file.copy())
            for item in inputs
            if item.label_file is not None
        ),
    )
    each = zip(*(item.members for item in inputs), strict=True)
    members = tuple(batch.place(own, canvases.device) for own in each)
    return replace(batch, members=members)


def _label_file(row: dict[str, Any], size: tuple[int, ...], vocabulary: Vocabulary) -> Bytes:
    if row["mask_uri"] is None:
        raise images.UnreadableImageError("it has no label file")
    try:
        labels = images.decode_labels(images.read_bytes(row["mask_uri"], expected=row["mask_id"]))
    except images.UnreadableImageError as error:
        raise images.UnreadableImageError(f"its label file: {error}") from error
    mask, _ = vocabulary.to_mask(labels, row["label_scheme"])
    return resized(mask, size[0], size[1])
