"""The `zarr.json` files of a label store: which are damaged, and how they are written again.

They have no checksum, since they change when the store grows: what they say is compared.
"""

from pathlib import Path
from typing import Any

import zarr
from zarr.storage import MemoryStore

from pipeline.files import storage
from pipeline.records.label_reader import open_array
from pipeline.records.label_store import DOCUMENT, DOCUMENTS, LabelStore, read_files


def damaged_documents(store: LabelStore) -> list[Path]:
    """The files that are missing or do not describe the store; none if it has no labels."""
    if not (num_shards := _num_shards(store)):
        return []
    expected = MemoryStore()
    store.add_arrays(expected, num_shards * store.shard_size)
    found = MemoryStore(read_files(store.path, DOCUMENTS))
    damaged = [
        store.path / name
        for name in DOCUMENTS
        if not _describes_the_same(found, expected, name)
        or not (name == DOCUMENT or _can_be_opened((store.path / name).parent))
    ]
    around = MemoryStore(read_files(store.path.parent, [DOCUMENT]))
    if not _describes_the_same(around, expected, DOCUMENT):
        damaged.append(store.path.parent / DOCUMENT)
    return damaged


def restore_documents(store: LabelStore) -> None:
    """Writes damaged files again, if there are any; labels stay."""
    if damaged := damaged_documents(store):
        for path in damaged:
            storage.remove(path)
        store.grow(_num_shards(store))


def _num_shards(store: LabelStore) -> int:
    """One more than the highest number of a shard that has a file."""
    folders = storage.glob(store.path / "mask/c", "*")
    return max((1 + int(path.name) for path in folders if path.name.isdecimal()), default=0)


def _describes_the_same(found: MemoryStore, expected: MemoryStore, name: str) -> bool:
    """Whether a document describes the group or array that is expected, with room for its rows."""
    try:
        own = _read_document(found, name)
    except Exception:  # zarr raises many kinds: a changed digit may divide by zero
        return False
    wanted = _read_document(expected, name)
    shape, least = own.pop("shape", ()), wanted.pop("shape", ())
    return own == wanted and shape[1:] == least[1:] and shape[:1] >= least[:1]


def _read_document(files: MemoryStore, name: str) -> dict[str, Any]:
    """What a document says, in zarr-python's normal form."""
    node = zarr.open(files, path=name.removesuffix(DOCUMENT), mode="r", zarr_format=3)
    return dict(node.metadata.to_dict())


def _can_be_opened(array: Path) -> bool:
    """Whether TensorStore opens an array: it is stricter than zarr-python."""
    try:
        open_array(array)
    except ValueError:
        return False
    return True
