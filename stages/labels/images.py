"""Images of the manifest, read in threads ahead of the network that waits for them."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.config.vocabulary import Vocabulary
from pipeline.images import images

T = TypeVar("T")
Row = TypeVar("Row")


def fitted_pixels(image: Mapping[str, Any], size_px: int) -> npt.NDArray[np.uint8]:
    """The pixels of an images row, (H, W, 3) uint8, scaled so that the long side is `size_px`.

    Raises:
        UnreadableImageError: The file is missing, or not the one that ingest read.
    """
    content = images.read_bytes(image["uri"], expected=image["image_id"])
    return images.fit(images.decode_image(content).pixels, size_px)


def read_truth(image: dict[str, Any], vocabulary: Vocabulary) -> npt.NDArray[np.uint8]:
    """The hand-made mask of an images row, (H, W) uint8 class ids, 255 = ignore.

    Raises:
        DataError: The file can no longer be read.
    """
    with images.readable(image["mask_uri"], expected=image["mask_id"]) as content:
        labels = images.decode_labels(content)
    return vocabulary.to_mask(labels, image["label_scheme"])[0]


def read_ahead(
    read: Callable[[Row], T], rows: Sequence[Row]
) -> Iterator[T | images.UnreadableImageError]:
    """What `read` makes of each row, in order; a file that cannot be read is its error instead."""

    def attempt(row: Row) -> T | images.UnreadableImageError:
        try:
            return read(row)
        except images.UnreadableImageError as error:
            return error

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        yield from threads.map(attempt, rows)
