"""Frames of videos as images. Reading them needs PyAV: `pip install 'maskmill[video]'`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import DataError
from pipeline.images.faults import UnreadableImageError

ENDINGS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
_ADDRESS = re.compile(r"(?P<video>.*)#frame=(?P<number>\d+)", re.DOTALL)


@dataclass(frozen=True)
class Frame:
    """A frame of a video.

    Attributes:
        video: Path of the file.
        number: Its place, from 0.
    """

    video: str
    number: int


def parse(address: str) -> Frame | None:
    """The frame that an address names; None for the address of another image."""
    found = _ADDRESS.fullmatch(address)
    return Frame(found["video"], int(found["number"])) if found else None


def addresses(video: str, every: int) -> list[str]:
    """Addresses of every `every`-th frame of a video; reads its packets, and decodes none.

    Raises:
        DataError: PyAV is not installed, or the file is no video that it can read.
    """
    with _opened(video) as container:
        stream = container.streams.video[0]
        count = sum(1 for packet in container.demux(stream) if packet.size)
    return [f"{video}#frame={number}" for number in range(0, count, every)]


class FrameReader:
    """Reads frames of videos, fast in ascending order."""

    def __init__(self) -> None:
        self._video: str | None = None
        self._container: Any = None
        self._frames: Iterator[npt.NDArray[np.uint8]] = iter(())
        self._next = 0

    def read(self, frame: Frame) -> npt.NDArray[np.uint8]:
        """Decodes a frame, (H, W, 3) uint8 RGB.

        Raises:
            UnreadableImageError: The video is damaged, or ends before this frame.
        """
        if frame.video != self._video or frame.number < self._next:
            self.close()
            self._container, self._video = _opened(frame.video), frame.video
            self._frames, self._next = self._decoded(), 0
        for pixels in self._frames:
            self._next += 1
            if self._next > frame.number:
                return pixels
        raise UnreadableImageError("the video ends before this frame, or is damaged from here on")

    def _decoded(self) -> Iterator[npt.NDArray[np.uint8]]:
        from av.error import FFmpegError

        try:
            for frame in self._container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")
        except FFmpegError:
            return

    def close(self) -> None:
        """Closes the open video."""
        if self._container is not None:
            self._container.close()
        self._container, self._video = None, None


def _opened(video: str) -> Any:
    if find_spec("av") is None:
        fix = "install it: pip install 'maskmill[video]'"
        raise DataError("reading videos needs PyAV", where=video, fix=fix)
    import av
    from av.error import FFmpegError

    try:
        container = av.open(video)
        if not container.streams.video:
            raise DataError("it has no pictures, only sound", where=video, fix="remove it")
    except FFmpegError as error:
        what = f"no video that can be read: {error.strerror}"
        raise DataError(what, where=video, fix="convert it with ffmpeg, or remove it") from error
    return container
