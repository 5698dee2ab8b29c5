"""Label files that are drawn from annotations: a folder of a run's artifacts, a file a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import stopping
from pipeline.files import file_stamps, storage
from pipeline.records import arrays
from stages.ingest.annotations import drawing
from stages.ingest.annotations.coco_panoptic import segment_ids
from stages.ingest.annotations.shapes import AnnotatedImage

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pipeline.images.limits import Limits

_LABELS, _REASON = ".png", ".txt"


class DrawnLabels:
    """A folder of label files. What is drawn from other annotations has another name.

    For an image that the annotations do not fit, a text file says why.

    Args:
        folder: The folder; may be missing.
        limits: What an image may cost.
        as_stored: Whether images are not turned by their EXIF orientation.
    """

    def __init__(self, folder: Path, limits: Limits, *, as_stored: bool) -> None:
        self.folder = folder
        self._limits = limits
        self._as_stored = as_stored
        self._files = {*file_stamps.stamps_in(folder)}

    def key(self, digest: str, stamp: str | None) -> str:
        """The name of a label file, without an ending.

        Args:
            digest: Digest of the shapes, see `drawing.digest`.
            stamp: Stamp of the image.
        """
        text = f"{digest} {stamp} {self._as_stored} {self._limits.model_dump_json()}"
        return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]

    def address(self, key: str) -> str:
        """Path or address of a label file."""
        return str(self.folder / f"{key}{_LABELS}")

    def is_done(self, key: str) -> bool:
        """Whether there is the label file, or the reason why there is none."""
        return not self._files.isdisjoint((f"{key}{_LABELS}", f"{key}{_REASON}"))

    def problem(self, key: str) -> str | None:
        """Why there is no label file, if there is a reason."""
        if (name := f"{key}{_REASON}") not in self._files:
            return None
        return storage.read_bytes(self.folder / name).decode(errors="replace")

    def draw(
        self, key: str, address: str, image: AnnotatedImage, class_ids: Sequence[int], rest: int
    ) -> None:
        """Draws a label file, or writes down why the annotations do not fit the image.

        An image that cannot be read now gets neither; ingest says of it what is wrong.

        Args:
            key: Its name.
            address: Address of the image.
            image: Its annotations.
            class_ids: See `drawing.draw`.
            rest: See `drawing.draw`.

        Raises:
            OSError: The file cannot be written; names it.
            StorageError: The object store does not answer.
        """
        from pipeline.images import images, opening
        from pipeline.images.faults import UnreachableImageError, UnreadableImageError

        try:
            content = images.read_bytes(address, self._limits)
            width, height, turn = opening.stored_size(content, self._limits)
        except (UnreachableImageError, MemoryError):
            return
        except OSError as error:
            if storage.is_fault(error):
                return
            raise
        except UnreadableImageError as error:
            self._write(f"{key}{_REASON}", str(error).encode())
            return
        stored, turned = (width, height), (width, height)
        if turn >= opening.SWAPS_SIDES:
            turned = (height, width)
        wanted, other = (stored, turned) if self._as_stored else (turned, stored)
        own = wanted if image.width is None else (image.width, image.height)
        if own not in (wanted, other):
            what = f"its annotations are of {own[0]} x {own[1]} pixels, it has {width} x {height}"
            self._write(f"{key}{_REASON}", f"{what} ({image.where})".encode())
            return
        segments = None
        if image.segments is not None:
            try:
                segments = segment_ids(images.read_bytes(image.segments, self._limits))
            except UnreachableImageError:
                return
            except UnreadableImageError as error:
                self._write(f"{key}{_REASON}", f"{image.segments}: {error}".encode())
                return
            if segments.shape != (own[1], own[0]):
                what = f"{image.segments} is {segments.shape[1]} x {segments.shape[0]} pixels"
                self._write(f"{key}{_REASON}", f"{what}, its image {own[0]} x {own[1]}".encode())
                return
        size = wanted if own == wanted else other
        labels = drawing.draw(image, class_ids, rest, *size, segments)
        if own != wanted:
            labels = opening.turned(labels, turn, back=self._as_stored)
        self._write(f"{key}{_LABELS}", _png(labels))

    def _write(self, name: str, content: bytes) -> None:
        storage.write_bytes(self.folder / name, content, durable=False)


def unused(folder: Path, used: set[str]) -> list[Path]:
    """The files in a folder that belong to none of these addresses of label files.

    With what writers left that were killed.
    """
    keys = {PurePosixPath(address).stem for address in used}
    files = (path for path in storage.glob(folder, "*") if path.suffix in (_LABELS, _REASON))
    return [*storage.temporaries(folder), *(path for path in files if path.stem not in keys)]


def in_folder(addresses: pa.ChunkedArray, folder: Path) -> pa.ChunkedArray:
    """Which addresses are those of label files in a folder; null is none."""
    found = pc.starts_with(addresses, pattern=f"{folder}/")
    return found.fill_null(arrays.flag(False))


def damaged(folder: Path, rows: pa.Table) -> list[str]:
    """The addresses of label files in a folder that are missing, or not those that ingest read.

    Args:
        folder: The folder.
        rows: Rows of the images manifest: `mask_uri` and `mask_id`.
    """
    from pipeline.images import images
    from pipeline.images.faults import UnreachableImageError, UnreadableImageError

    found = []
    for row in rows.filter(in_folder(rows["mask_uri"], folder)).to_pylist():
        stopping.check()
        if row["mask_id"] is not None:
            try:
                images.read_bytes(row["mask_uri"], expected=row["mask_id"])
            except UnreachableImageError:  # no damage: it can be read later
                continue
            except UnreadableImageError:
                found.append(row["mask_uri"])
    return found


def _png(labels: npt.NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(labels).save(buffer, "PNG")
    return buffer.getvalue()
