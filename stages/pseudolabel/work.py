"""Labels one shard: decode, label in batches, write the Zarr shard, hand back the manifest rows.

Runs on a Dask worker. The labeler with its weights is built once a worker and kept.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from pipeline.config.vocabulary import IGNORE, Vocabulary
from pipeline.errors import error_context
from pipeline.images.images import UnreadableImageError
from pipeline.records.label_store import CONFIDENCE_STRIDE
from stages.models.device import pick_device
from stages.pseudolabel.inputs import InputReader, LabelerInput, batch_of
from stages.pseudolabel.labelers.base import Labeler
from stages.pseudolabel.stored_labels import StoredLabels, to_cells
from stages.pseudolabel.task import ShardTask

Bytes = npt.NDArray[np.uint8]


def label_images(task: ShardTask) -> list[dict[str, Any]]:
    """See `stages.pseudolabel.task.label_shard`."""
    device = pick_device(task.device)
    with error_context(task.key):
        labeler = _loaded(
            task.labeler.component,
            task.labeler.config.model_dump_json(),
            task.vocabulary.model_dump_json(),
            device,
            task.store_name,
            task.cache,
        )
    size_px = task.store.size_px
    masks = np.full((len(task.images), size_px, size_px), IGNORE, np.uint8)
    side = size_px // CONFIDENCE_STRIDE
    confidences = np.zeros((len(task.images), side, side), np.uint8)
    rows = [_row(image, task) for image in task.images]

    def finish(batch: Sequence[tuple[int, LabelerInput]], mask: Bytes, confidence: Tensor) -> None:
        for index, (position, item) in enumerate(batch):
            masks[position] = mask[index]
            height, width = item.pixels.shape[:2]
            image = (slice(0, height), slice(0, width))
            coarse = to_cells(confidence[index][image])
            confidences[position, : coarse.shape[0], : coarse.shape[1]] = coarse
            measured = _measured(mask[index][image], confidence[index].numpy()[image])
            rows[position] |= {"height": height, "width": width, **measured}

    with ThreadPoolExecutor(1) as behind:  # while a batch is finished, the next one is labeled
        finished = behind.submit(finish, [], masks[:0], torch.empty(0))
        for batch in _batches(task, rows):
            start = time.perf_counter()
            with torch.inference_mode():
                labels = labeler.label(batch_of([item for _, item in batch], size_px))
            mask = labels.mask.to("cpu", torch.uint8).numpy()
            confidence = labels.confidence.float().cpu()
            seconds = (time.perf_counter() - start) / len(batch)
            for position, _ in batch:
                rows[position]["seconds"] = seconds
            finished.result()  # one at a time: memory stays flat
            finished = behind.submit(finish, batch, mask, confidence)
        finished.result()
    task.store.write(task.shard, [row["row"] for row in rows], masks, confidences)
    return rows


@lru_cache(maxsize=4)
def _loaded(
    component: type[Labeler],
    config: str,
    vocabulary: str,
    device: torch.device,
    store_name: str,
    cache: Path,
) -> Labeler:
    """The labeler of a config, both as JSON text, for they key the cache.

    So does the name of the store: it changes with the weights too, which a worker may outlive.
    """
    checked = component.Config.model_validate_json(config)
    labeler = component(checked, Vocabulary.model_validate_json(vocabulary))
    labeler.load(device, cache)
    return labeler


def _batches(
    task: ShardTask, rows: list[dict[str, Any]]
) -> Iterator[list[tuple[int, LabelerInput]]]:
    """Batches of (position in the shard, input), reading ahead; notes failures in rows."""
    component = task.labeler.component
    reader = InputReader(
        task.store.size_px,
        task.proposals if component.needs_proposals else None,
        task.vocabulary if component.needs_label_files else None,
        {name: StoredLabels(part, task.workspace) for name, part in task.members.items()},
    )
    batch: list[tuple[int, LabelerInput]] = []
    for position, item in enumerate(reader.read(task.images)):
        if isinstance(item, UnreadableImageError):
            rows[position] |= {"status": "failed", "error_message": str(item)}
            continue
        batch.append((position, item))
        if len(batch) == task.batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _row(image: dict[str, Any], task: ShardTask) -> dict[str, Any]:
    return {
        "image_id": image["image_id"],
        "shard": task.shard,
        "row": image["row"],
        "store": task.store_name,
        "coverage": 0.0,
        "class_ids": [],
        "class_fractions": [],
        "status": "ok",
        "fingerprint": task.fingerprint,
    }


def _measured(mask: Bytes, confidence: npt.NDArray[np.float32]) -> dict[str, Any]:
    """What a row says of a label, whose confidence is 0 where its mask is ignore."""
    pixels = np.array(Image.fromarray(mask).histogram()[:IGNORE])  # bincount would widen the mask
    class_ids, labeled = np.flatnonzero(pixels), int(pixels.sum())
    return {
        "coverage": labeled / mask.size,
        "mean_confidence": float(confidence.sum(dtype=np.float64)) / labeled if labeled else None,
        "class_ids": class_ids.tolist(),
        "class_fractions": (pixels[class_ids] / mask.size).tolist(),
    }
