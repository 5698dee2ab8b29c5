"""What TensorBoard shows of a training, in event files that a resumed training goes on in."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from torch.utils.tensorboard import SummaryWriter

from pipeline.files import storage

_FILES = "events.out.tfevents.*"
_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")


class _DamagedError(Exception):
    """Where a record of a file ends cannot be told."""


class EventLog:
    """A folder of event files: one a start of the training, without what a later start did again.

    In an object store they are written when flushed.

    Args:
        folder: The training's own folder.
        start: Steps that are done; what older files say of later ones is left out, and forgotten
            by a TensorBoard that shows it already.
        warn: Told of older files that are damaged: they are set aside, for nothing needs them.
    """

    def __init__(self, folder: Path, start: int, warn: Callable[[str], None]) -> None:
        self._folder = folder
        for path in sorted(folder.glob(_FILES)):
            try:
                _cut(path, start)
            except (DecodeError, _DamagedError, storage.NoPlainFileError):
                # TensorBoard reads whatever has its word in the name.
                aside = path.rename(path.with_name(path.name.replace("tfevents", "damaged")))
                warn(f"{path} was damaged; it is set aside as {aside.name}")
        self._scratch = TemporaryDirectory() if storage.is_object(folder) else None
        local = folder if self._scratch is None else self._scratch.name
        self._writer = SummaryWriter(str(local), purge_step=start + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds numbers by name, after `step` steps."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, pixels: npt.NDArray[np.uint8]) -> None:
        """Adds a picture (H, W, 3) RGB, after `step` steps."""
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def flush(self) -> None:
        """Has all that was added stored."""
        self._writer.flush()
        if self._scratch is not None:
            for path in Path(self._scratch.name).glob(_FILES):
                storage.write_bytes(self._folder / path.name, path.read_bytes())

    def close(self) -> None:
        """Flushes, and ends."""
        self.flush()
        self._writer.close()
        if self._scratch is not None:
            self._scratch.cleanup()


def _cut(path: Path, start: int) -> None:
    """Leaves out what an event file says of steps after `start`, and a record that was cut off."""
    content = storage.read_bytes(path)
    events = [(record, Event.FromString(data)) for record, data in _records(content)]
    kept = [(record, event) for record, event in events if event.step <= start]
    if not any(event.HasField("summary") for _, event in kept):
        path.unlink()
    elif len(shorter := b"".join(record for record, _ in kept)) < len(content):
        storage.write_bytes(path, shorter)


def _records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The whole records of a file in TensorFlow's record format, and the data in each.

    A record is the length of the data (8 bytes, little-endian), its checksum, data, its checksum.

    Raises:
        _DamagedError: A length has another checksum, so that nobody knows where its record ends.
    """
    at = 0
    while (first := at + _LENGTH.size + _CHECKSUM.size) <= len(content):
        (length,) = _LENGTH.unpack_from(content, at)
        (told,) = _CHECKSUM.unpack_from(content, at + _LENGTH.size)
        if told != masked_crc32c(content[at : at + _LENGTH.size]):
            raise _DamagedError
        end = first + length + _CHECKSUM.size
        if end > len(content):
            return
        yield content[at:end], content[first : first + length]
        at = end
