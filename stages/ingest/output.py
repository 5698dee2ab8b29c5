"""What later stages read of ingest."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from pipeline import manifest


def read_images(manifests: Path, roles: Collection[str]) -> list[dict[str, Any]]:
    """Rows of the good images of these roles, in the order of rows."""
    folder = manifests / manifest.IMAGES.name
    rows: list[dict[str, Any]] = manifest.read(folder, manifest.IMAGES).to_pylist()
    return [row for row in rows if row["status"] == "ok" and row["role"] in roles]
