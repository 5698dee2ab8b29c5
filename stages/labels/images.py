"""The image and label files of images rows: the one place where a stage reads them.

Readers of stage one (`decoded_pixels`, `fitted_pixels`, `fitted_mask`) raise
`UnreadableImageError`, whose text becomes the message of a failed row. The other readers raise
`DataError`: without the file the stage cannot go on. Both refuse a file whose bytes are not those
that ingest read, as `image_id` and `mask_id` of the row show; a row without these is not compared.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.config.vocabulary import CLASS_COLORS, Vocabulary
from pipeline.images import faults, images
from pipeline.images.faults import UnreadableImageError
from pipeline.images.label_files import decode_labels
from pipeline.images.overlay import resized
from pipeline.records.rows import ImageRow

Bytes = npt.NDArray[np.uint8]
Row = TypeVar("Row")
T = TypeVar("T")

_AHEAD = 2
"""Rows a core that are read before they are asked for."""


def read_pixels(row: ImageRow) -> Bytes:
    """Reads an image, (H, W, 3) uint8 RGB, upright.

    Raises:
        DataError: The file cannot be read, or has changed.
    """
    with images.readable(row["uri"], expected=row.get("image_id")) as content:
        return images.decode_pixels(content, row.get("image_id"))


def read_mask(row: ImageRow, vocabulary: Vocabulary) -> Bytes:
    """Reads the label file of an image that has one, (H, W) uint8 class ids, 255 = ignore.

    Raises:
        DataError: The file cannot be read, or has changed.
    """
    uri = row["mask_uri"]
    assert uri is not None, "the roles that are read with labels have label files"
    with images.readable(uri, expected=row.get("mask_id")) as content:
        labels = decode_labels(content, in_colors=row["label_scheme"] == CLASS_COLORS)
    return vocabulary.to_mask(labels, row["label_scheme"])[0]


def decoded_pixels(row: ImageRow) -> Bytes:
    """Reads an image, (H, W, 3) uint8 RGB, upright, at its own size.

    Raises:
        UnreadableImageError: The file cannot be read, or has changed.
    """
    content = images.read_bytes(row["uri"], expected=row.get("image_id"))
    return images.decode_pixels(content, row.get("image_id"))


def fitted_pixels(row: ImageRow, size_px: int) -> Bytes:
    """Reads an image, (H, W, 3) uint8 RGB, scaled so that the long side is `size_px`.

    Raises:
        UnreadableImageError: The file cannot be read, or has changed.
    """
    return images.fit(decoded_pixels(row), size_px)


def fitted_mask(row: ImageRow, height: int, width: int, vocabulary: Vocabulary) -> Bytes:
    """Reads a label file, scaled to (height, width) uint8 class ids, 255 = ignore.

    Raises:
        UnreadableImageError: The image has no label file, or the file cannot be read or has
            changed.
    """
    uri = row["mask_uri"]
    if uri is None:
        raise UnreadableImageError("this image has no label file")
    try:
        content = images.read_bytes(uri, expected=row.get("mask_id"))
        labels = decode_labels(content, in_colors=row["label_scheme"] == CLASS_COLORS)
    except UnreadableImageError as error:
        raise type(error)(f"label file: {error}") from error
    return resized(vocabulary.to_mask(labels, row["label_scheme"])[0], height, width)


def read_ahead(read: Callable[[Row], T], rows: Sequence[Row]) -> Iterator[T | UnreadableImageError]:
    """Reads rows in threads ahead of the caller, e.g. of a network.

    Args:
        read: Reads one row; may raise UnreadableImageError.
        rows: The rows. At most `_AHEAD` results a core are in memory at once.

    Yields:
        The result of each row, in order: what `read` returned, or the error it raised.
    """

    def attempt(row: Row) -> T | UnreadableImageError:
        try:
            return read(row)
        except UnreadableImageError as error:
            return error
        except MemoryError:
            return faults.out_of_memory()

    cores = os.cpu_count() or 1
    waiting: deque[Future[T | UnreadableImageError]] = deque()
    with ThreadPoolExecutor(cores) as threads:
        for row in rows:
            waiting.append(threads.submit(attempt, row))
            if len(waiting) >= _AHEAD * cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
