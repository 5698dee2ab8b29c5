"""Labels one shard on a Dask worker: decodes images, labels batches and writes the Zarr shard.

The labeler with its weights is built once per worker and cached.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from pipeline import stopping
from pipeline.config.vocabulary import IGNORE, Vocabulary
from pipeline.engine import image_progress
from pipeline.engine.run_shards import ShardResult
from pipeline.errors import WeightsError, error_context
from pipeline.images.faults import UnreadableImageError
from pipeline.records.label_store import CONFIDENCE_STRIDE
from pipeline.records.rows import ImageRow, LabelRow
from stages.models.device import pick_device
from stages.models.finite import naming_images
from stages.pseudolabel.inputs import InputReader, LabelerInput, batch_of
from stages.pseudolabel.labelers.base import Labeler
from stages.pseudolabel.stored_labels import StoredLabels, to_cells
from stages.pseudolabel.task import ShardTask

Bytes = npt.NDArray[np.uint8]


def label_shard(task: ShardTask) -> ShardResult[LabelRow]:
    """Labels the shard's images and writes the labels to the store.

    Returns:
        A row for each image, and the files of the labels. An image that can no longer be read has
        status failed, the reason, and a mask of ignore.

    Raises:
        NotFiniteError: Scores of an image are NaN or infinite.
    """
    device = pick_device(task.device)
    with error_context(task.key):
        labeler = _loaded(
            task.labeler.component,
            task.labeler.config.model_dump_json(),
            task.vocabulary.model_dump_json(),
            device,
            task.store_name,
            task.cache,
            json.dumps(task.weights),
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
            rows[position] |= {"height": height, "width": width}
            rows[position] |= _statistics(mask[index][image], confidence[index].numpy()[image])

    with ThreadPoolExecutor(1) as thread:  # finishes a batch while the next one is labeled
        finished = thread.submit(finish, [], masks[:0], torch.empty(0))
        for batch in _batches(task, rows, resizes=labeler.resizes):
            stopping.check()
            start = time.perf_counter()
            with torch.inference_mode(), error_context(task.key):
                labels = naming_images(
                    lambda items: labeler(batch_of(items, size_px)),
                    [item for _, item in batch],
                    [rows[position]["image_id"] for position, _ in batch],
                )
            mask = labels.mask.to("cpu", torch.uint8).numpy()
            confidence = labels.confidence.float().cpu()
            seconds = (time.perf_counter() - start) / len(batch)
            for position, _ in batch:
                rows[position]["seconds"] = seconds
            finished.result()  # one batch at a time bounds the memory
            finished = thread.submit(finish, batch, mask, confidence)
            image_progress.report(batch[-1][0] + 1)
        finished.result()
    files = task.store.write(task.shard, [row["row"] for row in rows], masks, confidences)
    return ShardResult(rows, files)


@lru_cache(maxsize=4)
def _loaded(
    component: type[Labeler],
    config: str,
    vocabulary: str,
    device: torch.device,
    store_name: str,
    cache: Path,
    weights: str,
) -> Labeler:
    """The loaded labeler of a config.

    Config and vocabulary are JSON text because they are keys of the cache. The store name is a key
    too: it changes with the weights, which may change while a worker lives.

    Raises:
        WeightsError: The weights here are others than those of the command, whose facts these are.
    """
    checked = component.Config.model_validate_json(config)
    labeler = component(checked, Vocabulary.model_validate_json(vocabulary))
    own = json.loads(json.dumps(labeler.weights_facts()))
    for key, wanted in json.loads(weights).items():
        if own.get(key) != wanted:
            what = f"process {os.getpid()} on {platform.node()} has {own.get(key)}, not {wanted}"
            fix = "put the same files there; it has labeled nothing"
            raise WeightsError(what, where=key, fix=fix)
    labeler.load(device, cache)
    return labeler


def _batches(
    task: ShardTask, rows: list[LabelRow], *, resizes: bool
) -> Iterator[list[tuple[int, LabelerInput]]]:
    """Batches of (position in the shard, input), read ahead; records failures in `rows`."""
    component = task.labeler.component
    reader = InputReader(
        task.store.size_px,
        task.max_side_px if resizes else None,
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


def _row(image: ImageRow, task: ShardTask) -> LabelRow:
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


def _statistics(mask: Bytes, confidence: npt.NDArray[np.float32]) -> LabelRow:
    """Columns that describe a label; its confidence is 0 where its mask is ignore."""
    # Pillow counts bytes in place; np.bincount would first copy the mask to int64.
    pixels = np.array(Image.fromarray(mask).histogram()[:IGNORE])
    class_ids, labeled = np.flatnonzero(pixels), int(pixels.sum())
    return {
        "coverage": labeled / mask.size,
        "mean_confidence": float(confidence.sum(dtype=np.float64)) / labeled if labeled else None,
        "class_ids": class_ids.tolist(),
        "class_fractions": (pixels[class_ids] / mask.size).tolist(),
    }
