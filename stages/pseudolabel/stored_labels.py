"""Stored labels of a shard, for labelers that merge the labels of others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from pipeline.config.vocabulary import IGNORE
from pipeline.records import manifest, tables
from pipeline.records.label_reader import LabelReader, StoredLabel
from pipeline.records.label_store import CONFIDENCE_STRIDE
from pipeline.records.rows import ImageRow, LabelRow
from stages.labels.pseudo_labels import PseudoLabels
from stages.pseudolabel.labelers.base import ImageBatch

_READ = ["row", "image_id", "store", "height", "width", "status"]


def to_cells(confidence: Tensor) -> npt.NDArray[np.uint8]:
    """Averages an image's confidence over cells of 4 x 4 pixels, as it is stored.

    Args:
        confidence: (H, W) float in [0, 1], on the CPU.

    Returns:
        (ceil(H / 4), ceil(W / 4)) uint8, 255 = certain: the mean of each cell. A cell at the edge
        is the mean of its pixels inside the image.
    """
    means = avg_pool2d(confidence[None], CONFIDENCE_STRIDE, ceil_mode=True, count_include_pad=False)
    return np.asarray((means[0] * 255).round().to(torch.uint8))


def from_cells(cells: npt.NDArray[np.uint8], mask: Tensor) -> Tensor:
    """Interpolates stored cells back to a confidence per pixel.

    Args:
        cells: (ceil(H / 4), ceil(W / 4)) uint8, see `to_cells`.
        mask: (H, W) int64, 255 = ignore.

    Returns:
        (H, W) float in [0, 1], bilinear between cells; 0 where the mask is ignore.
    """
    height, width = mask.shape
    coarse = torch.from_numpy(cells.copy()).float()[None, None] / 255
    fine = interpolate(coarse, scale_factor=CONFIDENCE_STRIDE, mode="bilinear")[0, 0]
    return fine[:height, :width].where(mask != IGNORE, 0)


def as_stored(labels: PseudoLabels, images: ImageBatch) -> PseudoLabels:
    """Labels as they are after storing and reading, on the CPU: confidences are coarser."""
    mask, confidence = labels.mask.cpu(), labels.confidence.float().cpu()
    kept = []
    for index, (height, width) in enumerate(images.sizes):
        image = (index, slice(height), slice(width))
        kept.append((mask[image], from_cells(to_cells(confidence[image]), mask[image])))
    return images.place(kept, mask.device)


class StoredLabels:
    """Labels of one shard that did not fail; threads may share an instance.

    Args:
        part: The shard's part of the labeler's manifest.
        workspace: The folder that store names are relative to.

    Raises:
        StorageError: The part is missing or damaged.
    """

    def __init__(self, part: Path, workspace: Path) -> None:
        table = manifest.read_part(part, tables.PSEUDO_LABELS, _READ)
        good: list[LabelRow] = table.filter(pc.equal(table["status"], "ok")).to_pylist()
        self._labels = {
            (row["row"], row["image_id"]): StoredLabel.of(workspace, row) for row in good
        }
        self._reader = LabelReader()

    def read(self, image: ImageRow, size: tuple[int, int]) -> tuple[Tensor, Tensor] | None:
        """Reads the label of an image.

        Args:
            image: The row of the images manifest: a label belongs to the bytes of its image.
            size: The image's height and width on the canvas.

        Returns:
            (H, W) int64 mask, 255 = ignore, and (H, W) float confidence in [0, 1], 0 where the mask
            is ignore; None where the image has no label, or one of another size.

        Raises:
            StorageError: A shard file is damaged.
        """
        found = self._labels.get((image["row"], image["image_id"]))
        if found is None or found.size != size:
            return None
        [(mask, cells)] = self._reader.read([found])
        values = torch.from_numpy(mask.copy()).long()
        return values, from_cells(cells, values)
