"""What later stages read of ingest."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from pipeline import manifest
from pipeline.config import Config
from pipeline.errors import DataError

Rows = list[dict[str, Any]]


def read_images(manifests: Path, roles: Collection[str]) -> Rows:
    """Rows of the good images of these roles, in the order of rows."""
    folder = manifests / manifest.IMAGES.name
    rows: Rows = manifest.read(folder, manifest.IMAGES).to_pylist()
    return [row for row in rows if row["status"] == "ok" and row["role"] in roles]


def read_shards(config: Config, roles: Collection[str]) -> dict[int, Rows]:
    """Rows of the good images of these roles, and of the labeled ones, by shard and in order.

    Raises:
        DataError: There is none.
    """
    wanted = {*roles, "labeled"}
    shards: dict[int, Rows] = {}
    for row in read_images(config.manifests, wanted):
        shards.setdefault(row["shard"], []).append(row)
    if not shards:
        what = f"no image of role {' or '.join(sorted(wanted))}"
        where = f"{config.path}: ingest.sources"
        raise DataError(what, where=where, fix="add a source of such images")
    return shards
