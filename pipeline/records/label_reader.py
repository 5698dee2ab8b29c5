"""Random reads of stored labels with TensorStore, several times faster than with zarr-python."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorstore as ts

from pipeline.files import storage
from pipeline.records.label_store import CONFIDENCE_STRIDE, RESTORE, Bytes, undamaged
from pipeline.records.rows import LabelRow

_VERIFY = "run `maskmill verify --rerun`: it labels damaged shards again"


def open_array(folder: Path) -> ts.TensorStore:
    """Opens an array of a label store for reading.

    Raises:
        ValueError: Its `zarr.json` is missing or damaged.
    """
    spec = {"driver": "zarr3", "kvstore": storage.kvstore(folder)}
    return ts.open(spec, open=True, read=True).result()


@dataclass(frozen=True)
class StoredLabel:
    """The place of a label: labels of one labeler lie in several stores.

    Attributes:
        store: Folder of the Zarr group that holds it.
        row: Its row in the arrays of this group.
        size: (height, width) of the image on the store's square canvas.
    """

    store: Path
    row: int
    size: tuple[int, int]

    @classmethod
    def of(cls, workspace: Path, label: LabelRow) -> StoredLabel:
        """The place that a good row of the pseudo_labels manifest names.

        Args:
            workspace: The folder that store names are relative to.
            label: The row.
        """
        height, width = label["height"], label["width"]
        assert height is not None
        assert width is not None
        return cls(workspace / label["store"], label["row"], (height, width))


class LabelReader:
    """Random reads of labels from any stores, each from its own; thread-safe.

    A store is opened once, when its first label is read.
    """

    def __init__(self) -> None:
        self._opened: dict[tuple[Path, str], Any] = {}

    def read(self, labels: Sequence[StoredLabel]) -> list[tuple[Bytes, Bytes]]:
        """Reads labels, without the padding around each image; one read for each store.

        Returns:
            For each label a mask (height, width) uint8, 255 = ignore, and a confidence at a quarter
            of the resolution (sides rounded up) uint8, 255 = certain.

        Raises:
            StorageError: The arrays of a store are missing or damaged, or have no such row.
        """
        by_store: defaultdict[Path, list[int]] = defaultdict(list)
        for index, label in enumerate(labels):
            by_store[label.store].append(index)
        found: dict[int, tuple[Bytes, Bytes]] = {}
        for store, indexes in by_store.items():
            rows = [labels[index].row for index in indexes]
            arrays = (self._read(store, "mask", rows), self._read(store, "confidence", rows))
            for index, mask, confidence in zip(indexes, *arrays, strict=True):
                height, width = labels[index].size
                cells = (-(-height // CONFIDENCE_STRIDE), -(-width // CONFIDENCE_STRIDE))
                found[index] = mask[:height, :width], confidence[: cells[0], : cells[1]]
        return [found[index] for index in range(len(labels))]

    def _read(self, store: Path, name: str, rows: list[int]) -> Bytes:
        key = (store, name)
        if key not in self._opened:
            with undamaged(store, RESTORE):
                self._opened[key] = open_array(store / name)
        with undamaged(store, _VERIFY):
            values: Bytes = self._opened[key][rows].read().result()
        return values
