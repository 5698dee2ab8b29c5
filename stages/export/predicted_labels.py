"""The masks in a folder that `maskmill predict` wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

from pipeline.config.config_section import Facts
from pipeline.config.vocabulary import Vocabulary
from pipeline.errors import DataError
from pipeline.files import storage
from pipeline.files.checksum import checksum_of_bytes
from stages.export.labeled_images import Item, LabeledImages
from stages.export.names import export_names
from stages.predict.output import CLASSES, TABLE, mask_file

Bytes = npt.NDArray[np.uint8]
_SHARD = 64
"""Images a group."""


class PredictedLabels(LabeledImages):
    """Predicted masks.

    Args:
        folder: The folder that `maskmill predict --to masks` wrote.
        split: The share of images that train, by chance; None: all.

    Raises:
        DataError: It is no such folder, is not finished, or holds no masks.
    """

    def __init__(self, folder: Path, split: float | None) -> None:
        self._folder, self._split = folder, split
        fix = "name the folder of a finished `maskmill predict --to masks`"
        try:
            table = pq.read_table(folder / TABLE, columns=["image", "name", "status", "image_id"])
            content = json.loads(storage.read_bytes(folder / CLASSES))
            self.vocabulary = Vocabulary.model_validate({"name": "predicted", "classes": content})
        except (OSError, pa.ArrowException, ValueError) as error:
            what = "no table of predictions, or no list of classes"
            raise DataError(what, where=str(folder), fix=fix) from error
        good = [row for row in table.to_pylist() if row["status"] == "ok"]
        self.left_out = {"not predicted": n} if (n := table.num_rows - len(good)) else {}
        self._rows = good
        if not good or not (folder / mask_file(good[0]["name"])).exists():
            raise DataError("it holds no masks", where=str(folder), fix=fix)
        pairs = [(row["image"], row["image_id"]) for row in good]
        self._names = export_names(pairs)

    @property
    def count(self) -> int:
        """See `LabeledImages.count`."""
        return len(self._rows)

    @property
    def facts(self) -> Facts:
        """See `LabeledImages.facts`."""
        return {"predictions": checksum_of_bytes(self._folder / TABLE), "split": self._split}

    def shards(self) -> Iterator[tuple[int, Iterator[Item]]]:
        """See `LabeledImages.shards`."""
        for shard, start in enumerate(range(0, len(self._rows), _SHARD)):
            part = zip(self._rows[start:], self._names[start : start + _SHARD], strict=False)
            yield shard, (self._item(row, name) for row, name in part)

    def mask(self, item: Item) -> Bytes:
        """See `LabeledImages.mask`."""
        path = self._folder / mask_file(item.row["name"])
        try:
            with Image.open(BytesIO(storage.read_bytes(path))) as picture:
                return np.asarray(picture)
        except (OSError, UnidentifiedImageError) as error:
            fix = "predict it again: delete the file, and run the same `maskmill predict`"
            raise DataError("the mask cannot be read", where=str(path), fix=fix) from error

    def _item(self, row: dict[str, str], name: str) -> Item:
        drawn = int(row["image_id"][:8], 16) / 16**8
        side = "train" if self._split is None or drawn < self._split else "val"
        found = {**row, "uri": row["image"], "labeler": None, "role": None}
        return Item(found, name, side)
