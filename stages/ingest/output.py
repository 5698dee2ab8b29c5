"""The images manifest, as later stages read it."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.config import Config
from pipeline.errors import DataError
from pipeline.records import arrays, manifest, tables
from pipeline.records.sharded_table import ShardedTable
from stages.ingest.config import IngestConfig

Rows = list[dict[str, Any]]

_READ = ("row", "image_id", "role", "uri", "mask_uri", "mask_id", "label_scheme", "status")


def read_images(manifests: Path, roles: Collection[str], more: tuple[str, ...] = ()) -> pa.Table:
    """Reads the good images of these roles, in the order of rows; with `more` of the columns."""
    images = manifest.read(manifests / tables.IMAGES.name, tables.IMAGES, _READ + more)
    is_wanted = _is_good(images, roles)
    return images if pc.all(is_wanted).as_py() else images.filter(is_wanted)


def read_images_with_masks(manifests: Path, roles: Collection[str]) -> pa.Table:
    """Reads the good images of these roles that have label files, in the order of rows."""
    images = manifest.read(manifests / tables.IMAGES.name, tables.IMAGES, _READ)
    return images.filter(pc.and_(_is_good(images, roles), pc.is_valid(images["mask_uri"])))


def read_shards(config: Config, roles: Collection[str]) -> ShardedTable:
    """Reads the good images of these roles by shard.

    Raises:
        DataError: There is no such image.
    """
    images = read_images(config.manifests, roles)
    if not images.num_rows:
        what = f"no image of role {' or '.join(sorted(roles))}"
        where = f"{config.path}: ingest.sources"
        raise DataError(what, where=where, fix="add a source of such images")
    ingest = config.sections["ingest"]
    assert isinstance(ingest, IngestConfig)
    return ShardedTable(images, ingest.shard_size)


def _is_good(images: pa.Table, roles: Collection[str]) -> pa.ChunkedArray:
    """(N,) bool: which images can be used and have one of these roles."""
    is_ok = pc.equal(images["status"], arrays.text("ok"))
    return pc.and_(is_ok, pc.is_in(images["role"], arrays.texts(roles)))
