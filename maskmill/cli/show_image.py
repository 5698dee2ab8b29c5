"""Shows one image: its rows in every manifest, the classes of its labels, and a picture."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from pipeline.config.config import Config
from pipeline.config.vocabulary import IGNORE, Vocabulary
from pipeline.console import Console
from pipeline.errors import DataError
from pipeline.files import storage
from pipeline.images import images
from pipeline.images.label_files import decode_labels
from pipeline.images.overlay import encoded, overlaid, shaded, sheet
from pipeline.records import manifest, tables
from pipeline.records.rows import LabelRow

Row = dict[str, Any]
Mask = npt.NDArray[np.uint8]

_FIX = "put a readable file there"


def show_image(config: Config, name: str, console: Console) -> None:
    """Prints the rows of an image and saves a picture: image, ground truth, labels, confidences.

    Args:
        config: The run.
        name: An image_id, or the path of the image: that of its source, or of any copy.
        console: The console to print to.

    Raises:
        DataError: The run has no such image, or its files can no longer be read.
    """
    row = _row_of(config, name)
    _print("images", row, console)
    labels = []
    for part in storage.glob(config.manifests / tables.PSEUDO_LABELS.name, "labeler=*"):
        for label in _rows(part, tables.PSEUDO_LABELS):
            if label["row"] == row["row"] and label["image_id"] == row["image_id"]:
                _print(f"pseudo_labels/{part.name}", label, console)
                console.line(f"  classes: {_shares(label, config.vocabulary)}")
                labels.append(label)
    path = config.artifacts / "show" / f"{row['image_id']}.png"
    good = [label for label in labels if label["status"] == "ok"]
    pictures = _pictures(config, row, good, console)
    storage.write_bytes(path, encoded(sheet([pictures])), durable=False)
    console.line(f"picture: {path} (image, labels of each kind, their confidence)")


def _row_of(config: Config, name: str) -> Row:
    """The row of an image; that of usable images before others."""
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


def _is_same(uri: str, path: str) -> bool:
    return uri == path or os.path.abspath(uri) == os.path.abspath(path)


def _shares(label: Row, vocabulary: Vocabulary) -> str:
    """The classes of a stored label: "car 31.0 %, road 20.5 %", largest first."""
    fractions = zip(label["class_ids"] or (), label["class_fractions"] or (), strict=True)
    return _in_words({*fractions}, vocabulary)


def _shares_of(mask: Mask, vocabulary: Vocabulary) -> str:
    """The classes of a mask (H, W), in the same words."""
    values, counts = np.unique(mask[mask != IGNORE], return_counts=True)
    return _in_words(
        {*zip(values.tolist(), (counts / mask.size).tolist(), strict=True)}, vocabulary
    )


def _in_words(shares: set[tuple[int, float]], vocabulary: Vocabulary) -> str:
    names = vocabulary.class_names
    largest = sorted(shares, key=lambda item: -item[1])
    text = ", ".join(f"{names[class_id]} {share:.1%}" for class_id, share in largest)
    return text or "none, all pixels are ignored"


def _pictures(config: Config, row: Row, labels: Sequence[Row], console: Console) -> list[Mask]:
    from pipeline.records.label_reader import LabelReader, StoredLabel  # slow to import

    palette = config.vocabulary.palette
    with images.readable(row["uri"], _FIX) as content:
        pixels = images.decode_pixels(content, row["image_id"])
    pictures = [pixels]
    if row["mask_uri"] is not None:
        with images.readable(row["mask_uri"], _FIX) as content:
            mask, _ = config.vocabulary.to_mask(decode_labels(content), row["label_scheme"])
        console.line(f"label file: {_shares_of(mask, config.vocabulary)}")
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
