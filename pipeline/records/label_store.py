"""The label store: Zarr v3 arrays, encoded by zarr-python and read by `label_reader.py`.

zarr encodes in memory; `storage` writes whole files, on a disk and in an object store alike. Each
image is a chunk, each shard a file. Masks are (N, S, S) uint8, 255 = ignore; confidences are
(N, S/4, S/4) uint8, 255 = certain, 0 outside the image. The manifest says which rows exist, and in
which group: rows that were never written are fill values.

zarr is imported inside functions, since a plan needs only the names of files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.config.vocabulary import IGNORE
from pipeline.errors import StorageError
from pipeline.files import s3_objects, storage

if TYPE_CHECKING:
    from zarr.abc.buffer import Buffer
    from zarr.storage import MemoryStore

CONFIDENCE_STRIDE = 4
"""Confidences have a quarter of the mask's resolution."""

Bytes = npt.NDArray[np.uint8]

DOCUMENT = "zarr.json"
"""Name of the files that describe groups and arrays."""
DOCUMENTS = (DOCUMENT, f"mask/{DOCUMENT}", f"confidence/{DOCUMENT}")
RESTORE = (
    "run `maskmill verify --rerun`: it restores what describes the arrays, and no label is lost"
)
"""The fix for arrays that cannot be opened."""


@dataclass(frozen=True)
class LabelStore:
    """The arrays of one labeler under one fingerprint.

    Attributes:
        path: Folder of the Zarr group.
        shard_size: Images in a shard.
        size_px: Side S of the masks; a multiple of 4.
    """

    path: Path
    shard_size: int
    size_px: int

    def grow(self, num_shards: int) -> None:
        """Creates the arrays, or adds room for more shards; existing labels stay.

        Raises:
            StorageError: The existing arrays are damaged.
        """
        import zarr

        labeler = self.path.parent
        _remove_temporaries(labeler, "**/.*.tmp")  # in groups of earlier configs too
        with undamaged(labeler, RESTORE), _written_through(labeler, [DOCUMENT]) as memory:
            zarr.open_group(memory, mode="a", zarr_format=3)
        with undamaged(self.path, RESTORE), _written_through(self.path, DOCUMENTS) as memory:
            self.add_arrays(memory, num_shards * self.shard_size)

    def add_arrays(self, memory: MemoryStore, rows: int) -> None:
        """Creates the group and its arrays in memory, or grows those that are there."""
        import zarr
        from zarr.codecs import Crc32cCodec, ZstdCodec

        group = zarr.open_group(memory, mode="a", zarr_format=3)
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
                size = self.shard_size
                what = f"this label store has another shard size (expected {size} images)"
                fix = "delete the folder, then run pseudolabel"
                raise StorageError(what, where=str(self.path), fix=fix)
            if array.shape[0] < rows:
                array.resize((rows, side, side))

    def write(
        self, shard: int, rows: list[int], masks: Bytes, confidences: Bytes
    ) -> dict[Path, str]:
        """Writes a whole shard, durably.

        Args:
            shard: Number of the shard; `grow` has made room for it.
            rows: Positions of the labels in the arrays, ascending; the other rows of the shard get
                fill values.
            masks: (len(rows), S, S) uint8, 255 = ignore.
            confidences: (len(rows), S/4, S/4) uint8, 255 = certain.

        Returns:
            The SHA-256 of each file that was written.

        Raises:
            OSError: There is no room, say; names the file.
        """
        import zarr
        from zarr.storage import MemoryStore

        first = shard * self.shard_size
        inside = np.array(rows, dtype=np.int64) - first
        written: dict[Path, str] = {}
        for name, values in (("mask", masks), ("confidence", confidences)):
            files = read_files(self.path / name, [DOCUMENT])
            array = zarr.open_array(MemoryStore(files), mode="r+")
            # a shard of only ignore needs a file too, else it would count as lost
            array = array.with_config({"write_empty_chunks": True})
            block = values
            if len(rows) < self.shard_size:
                block = np.full((self.shard_size, *array.shape[1:]), array.fill_value, np.uint8)
                block[inside] = values
            array[first : first + self.shard_size] = block
            path = self.shard_file(shard, name)
            _remove_temporaries(path.parent)
            content = files[storage.relative(path, self.path / name)].to_bytes()
            storage.write_bytes(path, content)
            written[path] = hashlib.sha256(content).hexdigest()
        return written

    def shard_file(self, shard: int, array: str = "mask") -> Path:
        """The file of a shard of an array."""
        return self.path / f"{array}/c/{shard}/0/0"


def unused_files(group: Path, shards: Container[int]) -> list[Path]:
    """A group's folders of other shards than these, and temporary files left by killed writers."""
    found = storage.temporaries(group)
    for array in (group / "mask", group / "confidence"):
        found += storage.temporaries(array)
        for folder in storage.glob(array, "c/*"):
            is_used = folder.name.isdecimal() and int(folder.name) in shards
            found += storage.temporaries(folder, "*/.*.tmp") if is_used else [folder]
    return found


def read_files(folder: Path, names: Sequence[str]) -> dict[str, Buffer]:
    """The existing ones of a folder's files, in the form of a `MemoryStore`."""
    from zarr.buffer import cpu

    files: dict[str, Buffer] = {}
    for name in names:
        with suppress(FileNotFoundError):
            files[name] = cpu.Buffer.from_bytes(storage.read_bytes(folder / name))
    return files


@contextmanager
def _written_through(folder: Path, names: Sequence[str]) -> Iterator[MemoryStore]:
    """These files of a folder in memory; files that the block adds or changes are written."""
    from zarr.storage import MemoryStore

    files = read_files(folder, names)
    before = {name: content.to_bytes() for name, content in files.items()}
    yield MemoryStore(files)
    for name in names:
        if name in files and (content := files[name].to_bytes()) != before.get(name):
            storage.write_bytes(folder / name, content)


def _remove_temporaries(folder: Path, pattern: str = ".*.tmp") -> None:
    for left in storage.temporaries(folder, pattern):
        storage.remove(left)


@contextmanager
def undamaged(group: Path, fix: str) -> Iterator[None]:
    """Turns errors of zarr and TensorStore about damaged data into errors that name the group."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        if (fault := s3_objects.fault(error, str(group))) is not None:
            raise fault from error
        reason = " ".join(str(error).partition(" [")[0].split())  # without TensorStore's spec
        raise StorageError(f"damaged labels: {reason}", where=str(group), fix=fix) from error
