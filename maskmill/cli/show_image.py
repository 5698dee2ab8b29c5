"""Shows one image: its rows in every manifest, and its labels drawn over it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from pipeline.config.config import Config
from pipeline.console import Console
from pipeline.errors import DataError
from pipeline.files import storage
from pipeline.images import images
from pipeline.images.label_files import decode_labels
from pipeline.images.overlay import encoded, overlaid, shaded, sheet
from pipeline.records import manifest, tables
from pipeline.records.rows import LabelRow

Row = dict[str, Any]

_FIX = "put a readable file there"


def show_image(config: Config, image_id: str, console: Console) -> None:
    """Prints the rows of an image and saves a picture: image, ground truth, labels, confidences.

    Raises:
        DataError: The run has no image with this id, or its files can no longer be read.
    """
    folder = config.manifests / tables.IMAGES.name
    # An image with a value range has it in its id: `0123456789abcdef@0-4095`.
    rows = (row for row in _rows(folder, tables.IMAGES) if row["image_id"] is not None)
    found = [
        row for row in rows if image_id in (row["image_id"], row["image_id"].partition("@")[0])
    ]
    if not found:
        what = f"no image {image_id!r}"
        fix = "use an image_id of this table; `maskmill run ingest` fills it"
        raise DataError(what, where=str(folder), fix=fix)
    row = min(found, key=lambda row: (row["image_id"] != image_id, row["status"] != "ok"))
    _print("images", row, console)
    labels = []
    for part in storage.glob(config.manifests / tables.PSEUDO_LABELS.name, "labeler=*"):
        for label in _rows(part, tables.PSEUDO_LABELS):
            if label["row"] == row["row"] and label["image_id"] == row["image_id"]:
                _print(f"pseudo_labels/{part.name}", label, console)
                labels.append(label)
    path = config.artifacts / "show" / f"{row['image_id']}.png"
    pictures = _pictures(config, row, [label for label in labels if label["status"] == "ok"])
    storage.write_bytes(path, encoded(sheet([pictures])), durable=False)
    console.line(f"picture: {path} (image, labels of each kind, their confidence)")


def _pictures(config: Config, row: Row, labels: Sequence[Row]) -> list[npt.NDArray[np.uint8]]:
    from pipeline.records.label_reader import LabelReader, StoredLabel  # slow to import

    palette = config.vocabulary.palette
    with images.readable(row["uri"], _FIX) as content:
        pixels = images.decode_pixels(content, row["image_id"])
    pictures = [pixels]
    if row["mask_uri"] is not None:
        with images.readable(row["mask_uri"], _FIX) as content:
            mask, _ = config.vocabulary.to_mask(decode_labels(content), row["label_scheme"])
        pictures.append(overlaid(pixels, mask, palette))
    for label in labels:
        stored = StoredLabel.of(config.run.workspace, cast(LabelRow, label))
        ((mask, confidence),) = LabelReader().read([stored])
        pictures += [overlaid(pixels, mask, palette), shaded(pixels, confidence)]
    return pictures


def _rows(folder: Path, table: tables.Table) -> list[Row]:
    rows: list[Row] = manifest.read(folder, table).to_pylist()
    return rows


def _print(title: str, row: Row, console: Console) -> None:
    console.line(title)
    for key, value in row.items():
        if value is not None:
            console.line(f"  {key}: {value}")
