"""The labels of a run: stored ones, and the label files of labeled images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, cast, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from pipeline.config.config import Config
from pipeline.config.config_section import Facts
from pipeline.config.vocabulary import IGNORE
from pipeline.errors import ConfigError, DataError
from pipeline.images.overlay import resized
from pipeline.records import arrays
from pipeline.records.label_reader import LabelReader, StoredLabel
from pipeline.records.rows import ImageRow
from stages.export.labeled_images import Item, LabeledImages
from stages.export.names import export_names
from stages.ingest.config import Role
from stages.ingest.output import read_images
from stages.labels.images import read_mask
from stages.pseudolabel.config import PseudolabelConfig
from stages.pseudolabel.output import read_labels

Bytes = npt.NDArray[np.uint8]
_VAL = ("val", "test")
_OWN = ("labeled", *_VAL)
"""Roles whose images have label files, which are exported instead of stored labels."""
_COLUMNS = ("shard", "height", "width")
_LABEL_COLUMNS = {
    "store": "store",
    "label_height": "height",
    "label_width": "width",
    "fingerprint": "fingerprint",
}
"""Columns of the images that have a stored label, and where they come from."""
_BATCH = 1024
"""Rows that are plain values at a time."""


class RunLabels(LabeledImages):
    """Labels of a run.

    Args:
        config: The run.
        labeler: The labeler of stored labels; None: the run's only one.
        roles: Roles of the images.
        min_confidence: Less sure pixels of stored labels are ignored, from 0 to 1.
        split: The share of images that train, by chance; None: val and test images do not.

    Raises:
        ConfigError: A role or the labeler is unknown, or the labeler has to be named.
        DataError: No image of these roles has a label.
    """

    def __init__(
        self,
        config: Config,
        labeler: str | None,
        roles: Sequence[str],
        min_confidence: float,
        split: float | None,
    ) -> None:
        if unknown := [role for role in roles if role not in get_args(Role)]:
            fix = f"use some of: {', '.join(get_args(Role))}"
            raise ConfigError(f"{unknown[0]!r} is no role", where="--roles", fix=fix)
        self.vocabulary = config.vocabulary
        self._config, self._roles, self._split = config, roles, split
        self._least = min_confidence
        self._reader = LabelReader()
        stored_roles = [role for role in roles if role not in _OWN]
        self._labeler = _labeler(config, labeler) if stored_roles else None
        self.left_out = {}
        self._table = self._find()
        if not self._table.num_rows:
            what = f"no image of the roles {', '.join(roles)} has a label"
            fix = "run `maskmill run pseudolabel`, or name other roles with --roles"
            raise DataError(what, where=f"run {config.run.run}", fix=fix)

    @property
    def count(self) -> int:
        """See `LabeledImages.count`."""
        count: int = self._table.num_rows
        return count

    @property
    def facts(self) -> Facts:
        """See `LabeledImages.facts`: which label each image has, and how it is changed."""
        digest = hashlib.sha256()
        for row in self._rows(["image_id", "mask_id", "fingerprint", "name"]):
            digest.update(json.dumps([*row.values()]).encode())
        return {
            "run": self._config.run.run,
            "labeler": self._labeler,
            "roles": [*self._roles],
            "min_confidence": self._least,
            "split": self._split,
            "classes": [*self.vocabulary.class_names],
            "labels": digest.hexdigest(),
        }

    def shards(self) -> Iterator[tuple[int, Iterator[Item]]]:
        """See `LabeledImages.shards`: those of the run."""
        for shard, rows in groupby(self._rows(), key=lambda row: int(row["shard"])):
            yield shard, (Item(row, row["name"], self._side(row)) for row in rows)

    def mask(self, item: Item) -> Bytes:
        """See `LabeledImages.mask`."""
        row = item.row
        if row["store"] is None:
            return read_mask(cast(ImageRow, row), self.vocabulary)
        size = row["label_height"], row["label_width"]
        place = StoredLabel(self._config.run.workspace / row["store"], row["row"], size)
        ((small, confidence),) = self._reader.read([place])
        height, width = row["height"], row["width"]
        mask = resized(small, height, width)
        if self._least > 0:
            smooth = Image.fromarray(confidence).resize((width, height), Image.Resampling.BILINEAR)
            mask = np.where(np.asarray(smooth) >= round(255 * self._least), mask, IGNORE)
        return mask.astype(np.uint8)

    def _find(self) -> pa.Table:
        """The images that have a label, in the order of rows, with the place of the label."""
        images = read_images(self._config.manifests, self._roles, _COLUMNS)
        own = pc.is_in(images["role"], pa.array(_OWN))
        nothing = pa.nulls(images.num_rows, pa.int64())
        found = self._stored(images) if self._labeler is not None else None
        at = nothing if found is None else pc.index_in(images["row"], arrays.whole(found["row"]))
        at = pc.if_else(own, pa.scalar(None, at.type), at)
        for name, column in _LABEL_COLUMNS.items():
            values = pa.nulls(images.num_rows) if found is None else found[column].take(at)
            images = images.append_column(name, values)
        is_labeled = pc.or_(own, pc.is_valid(at))
        if without := images.num_rows - int(pc.sum(is_labeled).as_py() or 0):
            self.left_out["without a stored label"] = without
        by = pc.if_else(own, pa.scalar(None, pa.string()), self._labeler)
        images = images.append_column("labeler", by).filter(is_labeled).sort_by("row")
        pairs = zip(images["uri"].to_pylist(), images["image_id"].to_pylist(), strict=True)
        return images.append_column("name", pa.array(export_names([*pairs]), pa.string()))

    def _stored(self, images: pa.Table) -> pa.Table:
        assert self._labeler is not None
        return read_labels(self._config.manifests, self._labeler, images)

    def _rows(self, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        table = self._table if columns is None else self._table.select(columns)
        for batch in table.to_batches(max_chunksize=_BATCH):
            yield from batch.to_pylist()

    def _side(self, row: dict[str, Any]) -> str:
        if self._split is None:
            return "val" if row["role"] in _VAL else "train"
        drawn = int(row["image_id"][:8], 16) / 16**8  # an id is a digest, so it is as by chance
        return "train" if drawn < self._split else "val"


def _labeler(config: Config, asked: str | None) -> str:
    section = config.section(PseudolabelConfig)
    known = [*section.labelers] if section is not None else []
    if asked in known:
        return str(asked)
    if asked is None and len(known) == 1:
        return known[0]
    what = f"no labeler {asked!r}" if asked is not None else "the run has several labelers"
    what = what if known else "the run has no labeler"
    fix = f"name one of: --labeler {', '.join(known)}" if known else "add a section `pseudolabel`"
    raise ConfigError(what, where=str(config.path), fix=fix)
