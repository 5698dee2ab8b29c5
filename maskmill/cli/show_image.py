"""Shows one image: its rows in every manifest, the classes of its labels, and a picture."""

import numpy as np
import numpy.typing as npt

from maskmill.image_view import Row, image_row, label_rows, pictures, truth_of
from pipeline.config.config import Config
from pipeline.config.vocabulary import IGNORE, Vocabulary
from pipeline.console import Console
from pipeline.files import storage
from pipeline.images.overlay import encoded, sheet

Mask = npt.NDArray[np.uint8]


def show_image(config: Config, name: str, console: Console) -> None:
    """Prints the rows of an image and saves a picture: image, ground truth, labels, confidences.

    Args:
        config: The run.
        name: An image_id, or the path of the image: that of its source, or of any copy.
        console: The console to print to.

    Raises:
        DataError: The run has no such image, or its files can no longer be read.
    """
    row = image_row(config, name)
    _print("images", row, console)
    for labeler, label in label_rows(config, row).items():
        _print(f"pseudo_labels/labeler={labeler}", label, console)
        console.line(f"  classes: {_shares(label, config.vocabulary)}")
    shown = list(pictures(config, row))
    if (truth := truth_of(config, row)) is not None:
        console.line(f"label file: {_shares_of(truth, config.vocabulary)}")
    path = config.artifacts / "show" / f"{row['image_id']}.png"
    storage.write_bytes(path, encoded(sheet([shown])), durable=False)
    console.line(f"picture: {path} (image, labels of each kind, their confidence)")


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


def _print(title: str, row: Row, console: Console) -> None:
    console.line(title)
    for key, value in row.items():
        if value is not None:
            console.line(f"  {key}: {value}")
