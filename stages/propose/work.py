"""Proposes masks in one shard: decode, ask SAM in batches, hand back the manifest rows.

Runs on a Dask worker. The model is read once a worker and kept.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.console import Console
from pipeline.images.images import UnreadableImageError
from stages.labels.images import fitted_pixels, read_ahead
from stages.models.device import pick_device
from stages.propose.config import GeneratorConfig, ProposeConfig
from stages.propose.generator.mask_generator import MaskGenerator, Proposal
from stages.propose.generator.sam import load_sam


@dataclass(frozen=True)
class ShardTask:
    """All a worker needs to propose masks in a shard.

    Attributes:
        shard: Its number.
        images: Manifest rows of the images, in the order of rows.
        config: The section `propose`.
        weights: Checksums of the model's files.
    """

    shard: int
    images: Sequence[dict[str, Any]]
    config: ProposeConfig
    weights: str


def propose_shard(task: ShardTask) -> list[dict[str, Any]]:
    """Proposes masks in the shard's images.

    Returns:
        A row of the proposals manifest for each image; one that can no longer be read has status
        failed, the reason, and no mask.
    """
    generator = _loaded(task.config.model_dump_json(), task.weights)
    rows = [
        {"image_id": image["image_id"], "shard": task.shard, "row": image["row"], **_columns([])}
        for image in task.images
    ]
    for batch in _batches(task, rows):
        start = time.perf_counter()
        proposals = generator([pixels for _, pixels in batch])
        seconds = (time.perf_counter() - start) / len(batch)
        for (position, pixels), found in zip(batch, proposals, strict=True):
            height, width = pixels.shape[:2]
            own = {"status": "ok", "height": height, "width": width, "seconds": seconds}
            rows[position] |= {**own, **_columns(found)}
    return rows


def _batches(
    task: ShardTask, rows: list[dict[str, Any]]
) -> Iterator[list[tuple[int, npt.NDArray[np.uint8]]]]:
    """Batches of (position in the shard, pixels), reading ahead; notes failures in rows."""
    read = read_ahead(lambda image: fitted_pixels(image, task.config.size_px), task.images)
    batch = []
    for position, pixels in enumerate(read):
        if isinstance(pixels, UnreadableImageError):
            rows[position] |= {"status": "failed", "error_message": str(pixels)}
            continue
        batch.append((position, pixels))
        if len(batch) == task.config.images_per_batch:
            yield batch
            batch = []
    if batch:
        yield batch


@lru_cache(maxsize=1)
def _loaded(config: str, weights: str) -> MaskGenerator:
    """The generator of a config, as JSON text; with the checksums, for they key the cache."""
    section = ProposeConfig.model_validate_json(config)
    sam = load_sam(section.model, section.checkpoint(Console())).to(pick_device(section.device))
    return MaskGenerator(sam, **section.model_dump(include=set(GeneratorConfig.model_fields)))


def _columns(proposals: Sequence[Proposal]) -> dict[str, Any]:
    names = ("rle", "area", "bbox", "predicted_iou", "stability_score")
    columns: dict[str, Any] = {
        name: [getattr(proposal, name) for proposal in proposals] for name in names
    }
    return {**columns, "num_masks": len(proposals)}
