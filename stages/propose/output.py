"""The output of propose: where the masks are, how they are read, what they depend on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

from pipeline.config.config_section import Facts
from pipeline.records import manifest, part_file, tables
from stages.propose.config import ProposeConfig

VERSION = 1
"""Version of the stage."""


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


ProposalsByImage = dict[tuple[int, str], Proposals]
"""Masks by row and image_id: masks belong to the bytes of their image."""


def mask_facts(section: ProposeConfig) -> Facts:
    """The facts of an image's masks besides the image.

    Raises:
        WeightsError: The model's files are missing.
    """
    return {"propose.version": VERSION, **section.facts("propose"), **section.weights_facts()}


def proposals_part(manifests: Path, shard: int) -> Path:
    """The manifest part of a shard."""
    return manifests / tables.PROPOSALS.name / part_file.part_name(shard)


def read_proposals(part: Path) -> ProposalsByImage:
    """The masks of a shard's images; images that failed are left out.

    Raises:
        StorageError: The part is missing or damaged.
    """
    rows = manifest.read_part(part, tables.PROPOSALS).to_pylist()
    return {
        (row["row"], row["image_id"]): Proposals(
            (row["height"], row["width"]),
            tuple(row["rle"]),
            tuple(row["predicted_iou"]),
            tuple(row["stability_score"]),
        )
        for row in rows
        if row["status"] == "ok"
    }
