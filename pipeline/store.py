"""The label store: Zarr v3 arrays, written with zarr-python and read with TensorStore.

One chunk an image and one file a shard. Masks are (N, S, S) uint8, 255 = ignore; confidences are
(N, S/4, S/4) uint8, 255 = certain, 0 outside the image. Ask the manifest which rows exist, and in
which group: an array holds fill values where nothing was written.
"""

import os
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorstore as ts
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from pipeline.errors import StorageError, writing
from pipeline.vocabulary import IGNORE

CONFIDENCE_STRIDE = 4
"""Confidences are kept at a quarter of the mask's resolution."""

Bytes = npt.NDArray[np.uint8]

_DELETE = "delete the folder, then run pseudolabel"
_VERIFY = "run `maskmill verify --rerun`: it labels damaged shards again"


@dataclass(frozen=True)
class LabelStore:
    """The arrays of one labeler under one fingerprint.

    Attributes:
        path: Folder of the Zarr group.
        shard_size: Images a shard.
        size_px: Side S of the masks; a multiple of 4.
    """

    path: Path
    shard_size: int
    size_px: int

    def grow(self, num_shards: int) -> None:
        """Creates the arrays, or makes room for more shards; what is there stays.

        Raises:
            StorageError: What is there is damaged.
        """
        for folder in (self.path.parent, self.path, self.path / "mask", self.path / "confidence"):
            _remove_partials(folder)
        with _undamaged(self.path.parent, _DELETE):
            zarr.open_group(self.path.parent, mode="a", zarr_format=3)
        with _undamaged(self.path, _DELETE):
            self._grow(num_shards * self.shard_size)

    def _grow(self, rows: int) -> None:
        group = zarr.open_group(self.path, mode="a", zarr_format=3)
        for name, side, fill in (
            ("mask", self.size_px, IGNORE),
            ("confidence", self.size_px // CONFIDENCE_STRIDE, 0),
        ):
            if name not in group:
                group.create_array(
                    name,
                    shape=(rows, side, side),
                    dtype="uint8",
                    chunks=(1, side, side),
                    shards=(self.shard_size, side, side),
                    compressors=(ZstdCodec(level=3), Crc32cCodec()),
                    fill_value=fill,
                    dimension_names=("row", "y", "x"),
                )
                continue
            array = group[name]
            assert isinstance(array, zarr.Array)
            if array.shards != (self.shard_size, side, side):
                what = f"laid out by other shards than of {self.shard_size} images"
                fix = "delete the folder, then run pseudolabel"
                raise StorageError(what, where=str(self.path), fix=fix)
            if array.shape[0] < rows:
                array.resize((rows, side, side))

    def write(self, shard: int, rows: list[int], masks: Bytes, confidences: Bytes) -> None:
        """Writes a whole shard, durably.

        Args:
            shard: Number of the shard; `grow` has made room for it.
            rows: Positions in the arrays that the labels belong to; the shard's others are filled.
            masks: (len(rows), S, S) uint8, 255 = ignore.
            confidences: (len(rows), S/4, S/4) uint8, 255 = certain.

        Raises:
            OSError: There is no room, say; names the file.
        """
        group = zarr.open_group(self.path, mode="r+")
        first = shard * self.shard_size
        inside = np.array(rows, dtype=np.int64) - first
        for name, values in (("mask", masks), ("confidence", confidences)):
            array = group[name]
            assert isinstance(array, zarr.Array)
            # a shard of ignore alone is a file too: without one it would count as gone
            array = array.with_config({"write_empty_chunks": True})
            block = np.full((self.shard_size, *array.shape[1:]), array.fill_value, np.uint8)
            block[inside] = values
            path = self.shard_file(shard, name)
            _remove_partials(path.parent)
            with writing(path):
                array[first : first + self.shard_size] = block
                with path.open("rb") as handle:
                    os.fsync(handle.fileno())

    def shard_file(self, shard: int, array: str = "mask") -> Path:
        """The file that holds a shard of an array."""
        return self.path / f"{array}/c/{shard}/0/0"


def unused_files(group: Path, shards: Container[int]) -> list[Path]:
    """Folders of a group's shards other than these, and what killed writers left of the others."""
    found = list(group.glob("*.partial"))
    for array in (group / "mask", group / "confidence"):
        found += array.glob("*.partial")
        for folder in array.glob("c/*"):
            is_used = folder.name.isdecimal() and int(folder.name) in shards
            found += folder.glob("*/*.partial") if is_used else [folder]
    return found


class LabelReader:
    """Random reads of a store's labels; safe to share among threads.

    Args:
        group: Folder of the Zarr group.

    Raises:
        StorageError: There are no label arrays, or none that can be read.
    """

    def __init__(self, group: Path) -> None:
        self._arrays = {}
        for name in ("mask", "confidence"):
            spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(group / name)}}
            with _undamaged(group, _DELETE):
                self._arrays[name] = ts.open(spec, open=True, read=True).result()
        self._group = group

    def read(self, rows: list[int], sizes: list[tuple[int, int]]) -> list[tuple[Bytes, Bytes]]:
        """Reads labels without the padding of their canvases.

        Args:
            rows: Positions in the arrays.
            sizes: (height, width) of the part of each canvas that is image.

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
        with _undamaged(self._group, _VERIFY):
            values: Bytes = self._arrays[name][rows].read().result()
        return values


def _remove_partials(folder: Path) -> None:
    """Deletes what a killed writer left: zarr writes beside a file, then renames."""
    for left in folder.glob("*.partial"):
        left.unlink(missing_ok=True)


@contextmanager
def _undamaged(group: Path, fix: str) -> Iterator[None]:
    """Names the group where zarr or TensorStore cannot make sense of what is on disk."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).partition(" [")[0].split())  # without TensorStore's spec
        raise StorageError(f"damaged labels: {reason}", where=str(group), fix=fix) from error
