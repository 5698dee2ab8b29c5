"""One shard to label, as it travels to a Dask worker. Who hands it out does not import torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.components import Choice
from pipeline.config.vocabulary import Vocabulary
from pipeline.records.label_store import LabelStore
from stages.pseudolabel.labelers.base import Labeler


@dataclass(frozen=True)
class ShardTask:
    """All a worker needs to label a shard.

    Attributes:
        shard: Its number.
        images: Manifest rows of the images to label, in the order of rows.
        labeler: The component that labels.
        key: Where the config says how, for errors.
        vocabulary: The classes.
        proposals: The shard's part of the proposals manifest, for labelers that need it.
        members: The shard's parts of other labelers' labels, by their names, for one made of them.
        workspace: What names of stores start from.
        store: Where the labels go; it has room for the shard.
        store_name: The store's path below the workspace, for the rows.
        cache: The run's folder for what labelers may keep, see `Labeler.load`.
        fingerprint: Of all the shard is made from, for the rows.
        batch_size: Images a batch.
        device: cpu, cuda, or auto.
    """

    shard: int
    images: Sequence[dict[str, Any]]
    labeler: Choice[Labeler]
    key: str
    vocabulary: Vocabulary
    proposals: Path
    members: Mapping[str, Path]
    workspace: Path
    store: LabelStore
    store_name: str
    cache: Path
    fingerprint: str
    batch_size: int
    device: str


def label_shard(task: ShardTask) -> list[dict[str, Any]]:
    """Labels the shard's images and writes them to the store.

    Returns:
        A row of the pseudo_labels manifest for each image; one that can no longer be read has
        status failed, the reason, and a mask of ignore.
    """
    from stages.pseudolabel.work import label_images

    return label_images(task)
