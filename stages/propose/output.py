"""What later stages read of propose."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

from pipeline.records import manifest, tables


@dataclass(frozen=True)
class Proposals:
    """The masks of one image; P may be 0.

    Attributes:
        size: (height, width) of the masks.
        rle: P run lengths, as COCO compresses them.
        predicted_iou: P numbers, about 0 to 1.
        stability_score: P numbers, 0 to 1.
    """

    size: tuple[int, int]
    rle: tuple[str, ...]
    predicted_iou: tuple[float, ...]
    stability_score: tuple[float, ...]

    def masks(self) -> npt.NDArray[np.bool_]:
        """(P, H, W) bool."""
        if not self.rle:
            return np.zeros((0, *self.size), np.bool_)
        encoded = [{"size": list(self.size), "counts": counts.encode()} for counts in self.rle]
        return np.moveaxis(np.asarray(coco.decode(encoded), np.bool_), -1, 0)


def proposals_part(manifests: Path, shard: int) -> Path:
    """The manifest part of a shard."""
    return manifests / tables.PROPOSALS.name / manifest.part_name(shard)


def read_proposals(part: Path) -> dict[int, Proposals]:
    """The masks of a shard's images by their rows; images that failed are left out.

    Raises:
        StorageError: The part is missing or damaged.
    """
    rows = manifest.read_part(part, tables.PROPOSALS).to_pylist()
    return {
        row["row"]: Proposals(
            (row["height"], row["width"]),
            tuple(row["rle"]),
            tuple(row["predicted_iou"]),
            tuple(row["stability_score"]),
        )
        for row in rows
        if row["status"] == "ok"
    }
