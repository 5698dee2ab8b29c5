"""What scores need of an images row: its pixels, and its label file."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.images import images

Bytes = npt.NDArray[np.uint8]


def read_pixels(row: dict[str, Any]) -> Bytes:
    """The pixels of an images row.

    Raises:
        DataError: The file can no longer be read.
    """
    with images.readable(row["uri"], expected=row["image_id"]) as content:
        return images.decode_image(content).pixels
