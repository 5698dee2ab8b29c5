"""Random reads of stored labels with TensorStore, several times faster than with zarr-python."""

from pathlib import Path

import tensorstore as ts

from pipeline.files import storage
from pipeline.records.label_store import CONFIDENCE_STRIDE, RESTORE, Bytes, undamaged

_VERIFY = "run `maskmill verify --rerun`: it labels damaged shards again"


def open_array(folder: Path) -> ts.TensorStore:
    """Opens an array of a label store for reading.

    Raises:
        ValueError: Its `zarr.json` is missing or damaged.
    """
    spec = {"driver": "zarr3", "kvstore": storage.kvstore(folder)}
    return ts.open(spec, open=True, read=True).result()


class LabelReader:
    """Random reads of the labels of a store; thread-safe.

    Args:
        group: Folder of the Zarr group.

    Raises:
        StorageError: The label arrays are missing or damaged.
    """

    def __init__(self, group: Path) -> None:
        self._arrays = {}
        for name in ("mask", "confidence"):
            with undamaged(group, RESTORE):
                self._arrays[name] = open_array(group / name)
        self._group = group

    def read(self, rows: list[int], sizes: list[tuple[int, int]]) -> list[tuple[Bytes, Bytes]]:
        """Reads labels, without the padding around each image.

        Args:
            rows: Positions in the arrays.
            sizes: (height, width) of each image in its row.

        Returns:
            For each row a mask (height, width) uint8, 255 = ignore, and a confidence at a quarter
            of the resolution (sides rounded up) uint8, 255 = certain.

        Raises:
            StorageError: A shard file is damaged, or has no such row.
        """
        masks, confidences = self._read("mask", rows), self._read("confidence", rows)
        labels = []
        for mask, confidence, (height, width) in zip(masks, confidences, sizes, strict=True):
            cells = (-(-height // CONFIDENCE_STRIDE), -(-width // CONFIDENCE_STRIDE))
            labels.append((mask[:height, :width], confidence[: cells[0], : cells[1]]))
        return labels

    def _read(self, name: str, rows: list[int]) -> Bytes:
        with undamaged(self._group, _VERIFY):
            values: Bytes = self._arrays[name][rows].read().result()
        return values
