"""One image: its rows in every manifest, and its labels drawn over it."""

from pathlib import Path
from typing import Any

import numpy as np

from pipeline import images, manifest
from pipeline.config import Config
from pipeline.console import Console
from pipeline.errors import DataError
from pipeline.overlay import overlaid, resized, sheet
from pipeline.store import LabelReader


def show_image(config: Config, image_id: str, console: Console) -> None:
    """Prints an image's rows and saves a picture: image, hand-made mask, labels, confidences.

    Raises:
        DataError: No image of the run has this id.
    """
    folder = config.manifests / manifest.IMAGES.name
    found = [row for row in _rows(folder, manifest.IMAGES) if row["image_id"] == image_id]
    if not found:
        what = f"no image {image_id!r}"
        fix = "use an image_id of this table; `maskmill run ingest` fills it"
        raise DataError(what, where=str(folder), fix=fix)
    row = min(found, key=lambda row: str(row["status"] != "ok"))
    _print("images", row, console)
    try:
        pixels = images.decode_image(images.read_bytes(Path(row["uri"]))).pixels
    except images.UnreadableImageError as error:
        raise DataError(str(error), where=row["uri"], fix="put a readable image there") from error
    height, width = pixels.shape[:2]
    palette = config.vocabulary.palette
    pictures = [pixels]
    if row["mask_uri"] is not None:
        labels = images.decode_labels(images.read_bytes(Path(row["mask_uri"])))
        mask, _ = config.vocabulary.to_mask(labels, row["label_scheme"])
        pictures.append(overlaid(pixels, mask, palette))
    for part in sorted((config.manifests / manifest.PSEUDO_LABELS.name).glob("labeler=*")):
        for label in _rows(part, manifest.PSEUDO_LABELS):
            if label["row"] == row["row"] and label["image_id"] == image_id:
                _print(f"pseudo_labels/{part.name}", label, console)
                group = config.run.workspace / label["store"]
                size = (label["height"], label["width"])
                ((mask, confidence),) = LabelReader(group).read([label["row"]], [size])
                grey = resized(confidence, height, width)
                pictures += [overlaid(pixels, mask, palette), np.stack([grey] * 3, axis=-1)]
    path = config.artifacts / "show" / f"{image_id}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet([pictures]).save(path)
    console.line(f"picture: {path} (image, labels of each kind, their confidence)")


def _rows(folder: Path, table: manifest.Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = manifest.read(folder, table).to_pylist()
    return rows


def _print(title: str, row: dict[str, Any], console: Console) -> None:
    console.line(title)
    for key, value in row.items():
        if value is not None:
            console.line(f"  {key}: {value}")
