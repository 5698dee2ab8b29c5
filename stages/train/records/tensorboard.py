"""TensorBoard event files of a training, continued when the training resumes."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import summary

from pipeline.errors import writing
from pipeline.files import storage

_FILES = "events.out.tfevents.*"
_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_NUMBERS = count()


class _DamagedError(Exception):
    """The end of a record in an event file is unknown."""


class EventFiles:
    """A folder of event files, one for each start of the training; no step is in two of them.

    In an object store the files are written by `flush`.

    Args:
        folder: The folder.
        start: Number of steps that are done. Older files lose the events of later steps, and a
            running TensorBoard drops them.
        warn: Called with a message for each damaged older file, which is renamed.
    """

    def __init__(self, folder: Path, start: int, warn: Callable[[str], None]) -> None:
        self._folder = folder
        for path in sorted(folder.glob(_FILES)):
            try:
                _cut(path, start)
            except (DecodeError, _DamagedError, storage.NoPlainFileError):
                # TensorBoard reads every file with `tfevents` in its name.
                aside = path.rename(path.with_name(path.name.replace("tfevents", "damaged")))
                warn(f"{path} is damaged; renamed to {aside.name}, the training does not need it")
        self._scratch = TemporaryDirectory() if storage.is_object(folder) else None
        self._file = _EventFile(folder if self._scratch is None else Path(self._scratch.name))
        started = SessionLog(status=SessionLog.START)
        self._file.add(step=start + 1, session_log=started)  # drops the events of later steps
        self._file.flush()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds scalars by name, after `step` steps."""
        for name, value in values.items():
            found = summary.scalar(name, value)  # type: ignore[no-untyped-call]
            self._file.add(step=step, summary=found)
        self._file.flush()

    def picture(self, step: int, name: str, pixels: npt.NDArray[np.uint8]) -> None:
        """Adds a picture (H, W, 3) RGB, after `step` steps."""
        found = summary.image(name, pixels, dataformats="HWC")  # type: ignore[no-untyped-call]
        self._file.add(step=step, summary=found)
        self._file.flush()

    def flush(self) -> None:
        """Stores everything that was added."""
        self._file.flush()
        if self._scratch is not None:
            for path in Path(self._scratch.name).glob(_FILES):
                storage.write_bytes(self._folder / path.name, path.read_bytes())

    def close(self) -> None:
        """Flushes, and closes the files."""
        try:
            self.flush()
        finally:
            self._file.close()
            if self._scratch is not None:
                self._scratch.cleanup()


class _EventFile:
    """A new event file, written by the caller.

    TensorBoard's own writer has a thread, which fails with a traceback when the disk is full.

    Args:
        folder: Its folder.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        now, number = int(time.time()), next(_NUMBERS)  # TensorBoard reads files in their order
        name = f"events.out.tfevents.{now:010d}.{socket.gethostname()}.{os.getpid()}.{number}"
        self._path = folder / name
        self._records = RecordWriter(self._path.open("wb"))
        self.add(file_version="brain.Event:2")

    def add(self, **fields: Any) -> None:
        """Adds an event."""
        with writing(self._path):
            self._records.write(Event(wall_time=time.time(), **fields).SerializeToString())

    def flush(self) -> None:
        """Writes what was added to the file."""
        with writing(self._path):
            self._records.flush()

    def close(self) -> None:
        """Closes the file."""
        with writing(self._path):
            self._records.close()


def _cut(path: Path, start: int) -> None:
    """Removes the events of steps after `start` from a file, and a truncated last record."""
    content = storage.read_bytes(path)
    events = [(record, Event.FromString(data)) for record, data in _records(content)]
    kept = [(record, event) for record, event in events if event.step <= start]
    if not any(event.HasField("summary") for _, event in kept):
        storage.remove(path)
    elif len(shorter := b"".join(record for record, _ in kept)) < len(content):
        storage.write_bytes(path, shorter)


def _records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields the complete records of a file in TensorFlow's record format, with their data.

    A record is the length of the data (8 bytes, little-endian), its checksum, data, its checksum.

    Raises:
        _DamagedError: The checksum of a length is wrong, so the end of its record is unknown.
    """
    at = 0
    while (first := at + _LENGTH.size + _CHECKSUM.size) <= len(content):
        (length,) = _LENGTH.unpack_from(content, at)
        (checksum,) = _CHECKSUM.unpack_from(content, at + _LENGTH.size)
        if checksum != masked_crc32c(content[at : at + _LENGTH.size]):
            raise _DamagedError
        end = first + length + _CHECKSUM.size
        if end > len(content):
            return
        yield content[at:end], content[first : first + length]
        at = end
