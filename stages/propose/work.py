"""The work of a Dask worker on one shard: decode images, run SAM in batches, return rows.

The model is loaded once in each worker and kept.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pipeline import stopping
from pipeline.console import Console
from pipeline.engine import image_progress
from pipeline.engine.run_shards import ShardResult
from pipeline.errors import error_context
from pipeline.images.faults import UnreadableImageError
from pipeline.records.rows import ProposalsRow
from stages.labels.images import fitted_pixels, read_ahead
from stages.models.device import pick_device
from stages.models.finite import naming_images
from stages.propose.config import GeneratorConfig, ProposeConfig
from stages.propose.generator.mask_generator import MaskGenerator, Proposal
from stages.propose.generator.sam import load_sam
from stages.propose.task import ShardTask


def propose_shard(task: ShardTask) -> ShardResult[ProposalsRow]:
    """Proposes masks in the images of a shard.

    Returns:
        A row of the proposals manifest for each image. An image that can no longer be read has the
        status failed, the reason, and no masks.

    Raises:
        NotFiniteError: Scores of an image are NaN or infinite.
    """
    generator = _load_generator(task.config.model_dump_json(), task.weights)
    rows: list[ProposalsRow] = [
        {"image_id": image["image_id"], "shard": task.shard, "row": image["row"], **_columns([])}
        for image in task.images
    ]
    for batch in _batches(task, rows):
        stopping.check()
        start = time.perf_counter()
        names = [task.images[position]["image_id"] for position, _ in batch]
        with error_context("propose"):
            proposals = naming_images(generator, [pixels for _, pixels in batch], names)
        seconds = (time.perf_counter() - start) / len(batch)
        for (position, pixels), found in zip(batch, proposals, strict=True):
            height, width = pixels.shape[:2]
            row = rows[position]
            row["status"], row["seconds"] = "ok", seconds
            row["height"], row["width"] = height, width
            row.update(_columns(found))
        image_progress.report(batch[-1][0] + 1)
    return ShardResult(rows)


def _batches(
    task: ShardTask, rows: list[ProposalsRow]
) -> Iterator[list[tuple[int, npt.NDArray[np.uint8]]]]:
    """Yields batches of (position in the shard, pixels); marks unreadable images in `rows`."""
    read = read_ahead(lambda image: fitted_pixels(image, task.config.size_px), task.images)
    batch = []
    for position, pixels in enumerate(read):
        if isinstance(pixels, UnreadableImageError):
            rows[position]["status"], rows[position]["error_message"] = "failed", str(pixels)
            continue
        batch.append((position, pixels))
        if len(batch) == task.config.images_per_batch:
            yield batch
            batch = []
    if batch:
        yield batch


@lru_cache(maxsize=1)
def _load_generator(config: str, weights: str) -> MaskGenerator:
    """Loads the generator of a config; JSON text and checksums are the key of the cache."""
    section = ProposeConfig.model_validate_json(config)
    sam = load_sam(section.model, section.checkpoint(Console())).to(pick_device(section.device))
    return MaskGenerator(sam, **section.model_dump(include=set(GeneratorConfig.model_fields)))


def _columns(proposals: Sequence[Proposal]) -> ProposalsRow:
    """The columns of a row that hold masks."""
    return {
        "num_masks": len(proposals),
        "rle": [proposal.rle for proposal in proposals],
        "area": [proposal.area for proposal in proposals],
        "bbox": [list(proposal.bbox) for proposal in proposals],
        "predicted_iou": [proposal.predicted_iou for proposal in proposals],
        "stability_score": [proposal.stability_score for proposal in proposals],
    }
