"""What later stages read of pseudolabel."""

from pathlib import Path
from typing import Any

from pipeline import manifest


def labels_folder(manifests: Path, labeler: str) -> Path:
    """The folder of a labeler's parts."""
    return manifests / manifest.PSEUDO_LABELS.name / f"labeler={labeler}"


def read_labels(manifests: Path, labeler: str) -> dict[int, dict[str, Any]]:
    """Rows of a labeler's good labels, by the image's row."""
    folder = labels_folder(manifests, labeler)
    rows: list[dict[str, Any]] = manifest.read(folder, manifest.PSEUDO_LABELS).to_pylist()
    return {row["row"]: row for row in rows if row["status"] == "ok"}
