"""Stored labels beside the truth: one way to hold them together for all who measure labelers."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config.config import Config
from pipeline.images.overlay import resized
from pipeline.records.label_reader import LabelReader
from stages.labels.images import read_truth
from stages.pseudolabel.output import of_rows, read_labels

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class JudgedLabel:
    """A stored label at the resolution of the image's label file.

    Attributes:
        image: The images row.
        truth: (H, W) uint8 class ids, 255 = ignore.
        mask: (H, W) uint8 class ids, 255 = ignore.
        confidence: (H, W) uint8, 255 = certain: each pixel's cell, as training reads it.
    """

    image: dict[str, Any]
    truth: Bytes
    mask: Bytes
    confidence: Bytes


def judged_labels(config: Config, labeler: str, images: pa.Table) -> Iterator[JudgedLabel]:
    """A labeler's good labels of those of these images that have a label file, in their order.

    Raises:
        DataError: A label file can no longer be read.
        StorageError: The labels are damaged.
    """
    labels = {row["row"]: row for row in _labels(config, labeler, images).to_pylist()}
    reader = lru_cache(maxsize=16)(LabelReader)
    for image in images.to_pylist():
        label = labels.get(image["row"])
        if label is None or image["mask_uri"] is None:
            continue
        stored = reader(config.run.workspace / label["store"])
        size = (label["height"], label["width"])
        ((mask, confidence),) = stored.read([label["row"]], [size])
        truth = read_truth(image, config.vocabulary)
        height, width = truth.shape
        yield JudgedLabel(
            image, truth, resized(mask, height, width), resized(confidence, height, width)
        )


def _labels(config: Config, labeler: str, images: pa.Table) -> pa.Table:
    return of_rows(read_labels(config.manifests, labeler), images)
