"""What scores need of an images row: its pixels, and its label file."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline import images
from pipeline.vocabulary import Vocabulary

Bytes = npt.NDArray[np.uint8]


def read_pixels(row: dict[str, Any]) -> Bytes:
    """The pixels of an images row.

    Raises:
        DataError: The file can no longer be read.
    """
    with images.readable(row["uri"]) as content:
        return images.decode_image(content).pixels


def read_truth(row: dict[str, Any], vocabulary: Vocabulary) -> Bytes:
    """The hand-made mask of an images row, (H, W) uint8 class ids, 255 = ignore.

    Raises:
        DataError: The file can no longer be read.
    """
    with images.readable(row["mask_uri"]) as content:
        labels = images.decode_labels(content)
    return vocabulary.to_mask(labels, row["label_scheme"])[0]
