"""What is scored of labelers, and what has pictures; read when it is planned, so without torch."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from pipeline.config.config import Config
from stages.evaluate.tables import SPLITS
from stages.ingest.output import read_images
from stages.pseudolabel.output import of_rows, read_labels

_ROLES = ("unlabeled", "ood", "val", "test")
"""Of the images whose labels are shown and scored; the labeled ones are for the report card."""


def shown_labels(config: Config, labeler: str) -> tuple[pa.Table, pa.Table]:
    """Rows of all images of these roles, and of a labeler's labels of them."""
    images = read_images(config.manifests, _ROLES)
    return images, of_rows(read_labels(config.manifests, labeler), images)


def shown_split(images: pa.Table) -> str | None:
    """The split of images whose predictions are shown: the last that has any."""
    there = images["role"].unique().to_pylist()
    return next((split for split in reversed(SPLITS) if split in there), None)


def labels_file(page: Path, labeler: str) -> Path:
    """The picture of a labeler's labels, beside the report's page."""
    return page.with_name(f"labels-{labeler}.png")


def predictions_file(page: Path, split: str) -> Path:
    """The picture of what variants predict on a split, beside the report's page."""
    return page.with_name(f"predictions-{split}.png")
