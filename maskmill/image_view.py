"""All that a run knows of one image: its rows in the tables, and pictures of its labels."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from pipeline.config.config import Config
from pipeline.errors import DataError
from pipeline.files import storage
from pipeline.images import images
from pipeline.images.overlay import overlaid, shaded
from pipeline.records import manifest, tables
from pipeline.records.rows import LabelRow

Row = dict[str, Any]
Bytes = npt.NDArray[np.uint8]

_FIX = "put a readable file there"


def image_row(config: Config, name: str) -> Row:
    """The row of an image in the images manifest; that of usable images before others.

    Args:
        config: The run.
        name: An image_id, or the path of the image: that of its source, or of any copy.

    Raises:
        DataError: The run has no such image.
    """
    folder = config.manifests / tables.IMAGES.name
    rows = [row for row in _rows(folder, tables.IMAGES) if row["image_id"] is not None]
    # An image with a value range has it in its id: `0123456789abcdef@0-4095`.
    found = [row for row in rows if name in (row["image_id"], row["image_id"].partition("@")[0])]
    if not found:
        found = [row for row in rows if _is_same(row["uri"], name)]
    if not found and os.path.isfile(name):  # an image is its bytes
        content = images.content_id(Path(name).read_bytes())
        found = [row for row in rows if row["image_id"].partition("@")[0] == content]
    if not found:
        what = f"no image {name!r}"
        fix = "use an image_id or a uri of this table; `maskmill run ingest` fills it"
        raise DataError(what, where=str(folder), fix=fix)
    return min(found, key=lambda row: (row["image_id"] != name, row["status"] != "ok"))


def label_rows(config: Config, image: Row) -> dict[str, Row]:
    """The rows of an image's stored labels by labeler."""
    found = {}
    for part in storage.glob(config.manifests / tables.PSEUDO_LABELS.name, "labeler=*"):
        for label in _rows(part, tables.PSEUDO_LABELS):
            if label["row"] == image["row"] and label["image_id"] == image["image_id"]:
                found[part.name.removeprefix("labeler=")] = label
    return found


def pixels_of(image: Row) -> Bytes:
    """The image, (H, W, 3) uint8 RGB, upright.

    Raises:
        DataError: Its file can no longer be read.
    """
    with images.readable(image["uri"], _FIX) as content:
        return images.decode_pixels(content, image["image_id"])


def truth_of(config: Config, image: Row) -> Bytes | None:
    """Its label file, (H, W) uint8 class ids, 255 = ignore; None if it has none.

    Raises:
        DataError: The file can no longer be read.
    """
    from stages.labels.images import read_mask  # slow to import

    return None if image["mask_uri"] is None else read_mask(cast(Any, image), config.vocabulary)


def stored_label(config: Config, label: Row) -> tuple[Bytes, Bytes]:
    """A stored label: mask (h, w) uint8, and confidence (h/4, w/4) uint8, 255 = certain.

    Its long side is the store's size; a row with the status "ok" has one.
    """
    from pipeline.records.label_reader import LabelReader, StoredLabel  # slow to import

    stored = StoredLabel.of(config.run.workspace, cast(LabelRow, label))
    ((mask, confidence),) = LabelReader().read([stored])
    return mask, confidence


def pictures(config: Config, image: Row) -> Iterator[Bytes]:
    """Pictures (H, W, 3) uint8: the image, its label file, and each stored label and confidence."""
    palette, pixels = config.vocabulary.palette, pixels_of(image)
    yield pixels
    if (truth := truth_of(config, image)) is not None:
        yield overlaid(pixels, truth, palette)
    for label in label_rows(config, image).values():
        if label["status"] == "ok":
            mask, confidence = stored_label(config, label)
            yield overlaid(pixels, mask, palette)
            yield shaded(pixels, confidence)


def _is_same(uri: str, path: str) -> bool:
    return uri == path or os.path.abspath(uri) == os.path.abspath(path)


def _rows(folder: Path, table: tables.Table) -> list[Row]:
    rows: list[Row] = manifest.read(folder, table).to_pylist()
    return rows
