"""One shard to propose masks in, as sent to a Dask worker. Importing this module loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.records.rows import ImageRow
from stages.propose.config import ProposeConfig


@dataclass(frozen=True)
class ShardTask:
    """The input of a worker for one shard.

    Attributes:
        shard: Number of the shard.
        images: Rows of the images manifest, in the order of rows.
        config: The section `propose`.
        weights: Checksums of the model's files.
    """

    shard: int
    images: Sequence[ImageRow]
    config: ProposeConfig
    weights: str
