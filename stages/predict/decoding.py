"""Reads images in threads ahead of the network."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.images import faults, images
from pipeline.images.faults import UnreadableImageError
from stages.predict import frames


@dataclass(frozen=True)
class Decoded:
    """A decoded image.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, upright.
        image_id: The id of its bytes; None for a frame of a video.
    """

    pixels: npt.NDArray[np.uint8]
    image_id: str | None


def decoded(
    addresses: Iterable[str],
) -> Generator[Decoded | UnreadableImageError, None, None]:
    """Decodes images in order; at most twice as many as there are cores are in memory.

    Yields:
        Each image, or why it cannot be read.
    """
    ahead = 2 * (os.cpu_count() or 1)
    waiting: deque[Future[Decoded | UnreadableImageError]] = deque()
    # Frames of a video are only fast to read in order, so one thread reads all of them.
    with (
        closing(frames.FrameReader()) as film,
        ThreadPoolExecutor(1) as one,
        ThreadPoolExecutor() as threads,
    ):
        try:
            for address in addresses:
                frame = frames.parse(address)
                if frame is None:
                    waiting.append(threads.submit(_image, address))
                else:
                    waiting.append(one.submit(_frame, film, frame))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _image(address: str) -> Decoded | UnreadableImageError:
    try:
        content = images.read_bytes(address)
        return Decoded(images.decode_image(content).pixels, images.image_id(content))
    except UnreadableImageError as error:
        return error
    except MemoryError:
        return faults.out_of_memory()


def _frame(film: frames.FrameReader, frame: frames.Frame) -> Decoded | UnreadableImageError:
    try:
        return Decoded(film.read(frame), None)
    except UnreadableImageError as error:
        return error
    except MemoryError:
        return faults.out_of_memory()
