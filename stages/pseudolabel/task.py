"""The task of labeling one shard, sent to a Dask worker; it is built without importing torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.components import Choice
from pipeline.config.config_section import Facts
from pipeline.config.vocabulary import Vocabulary
from pipeline.records.label_store import LabelStore
from pipeline.records.rows import ImageRow
from stages.pseudolabel.labelers.base import Labeler


@dataclass(frozen=True)
class ShardTask:
    """Everything a worker needs to label a shard.

    Attributes:
        shard: The shard's number.
        images: Rows of the images to label, in the order of the manifest.
        labeler: The chosen labeler and its config.
        key: The labeler's key in the config, for errors.
        weights: The facts of the labeler's weights, which a worker must have too.
        vocabulary: The classes.
        proposals: The shard's part of the proposals manifest, for labelers that need it.
        members: The shard's parts of the members' labels, by labeler name; for `ensemble`.
        workspace: The folder that store names are relative to.
        store: The label store, already large enough for the shard.
        store_name: The store's path relative to the workspace, for the rows.
        cache: The run's cache folder, see `Labeler.load`.
        fingerprint: Digest of the shard's facts, for the rows.
        max_side_px: Bound of images as decoded, for labelers that resize them by themselves.
        batch_size: Images per batch.
        device: cpu, cuda, mps, or auto.
    """

    shard: int
    images: Sequence[ImageRow]
    labeler: Choice[Labeler]
    key: str
    weights: Facts
    vocabulary: Vocabulary
    proposals: Path
    members: Mapping[str, Path]
    workspace: Path
    store: LabelStore
    store_name: str
    cache: Path
    fingerprint: str
    max_side_px: int
    batch_size: int
    device: str
