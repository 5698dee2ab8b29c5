"""The image files of a folder; all other files are counted."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from errno import EACCES, EPERM
from typing import NamedTuple

from pipeline.files import storage
from stages.ingest.containment import Root
from stages.ingest.file_kind import START, FileKind, PassedOver, kind_by_name, starts_as_image

_READERS = 16
"""Threads that look into files whose names do not say what they are."""


class ImageFile(NamedTuple):
    """A file of a folder.

    Attributes:
        name: Its path below the folder; that of a linked folder ends with a slash.
        path: Its path or address.
        problem: Why it must not be read, if so.
    """

    name: str
    path: str
    problem: str | None = None


def image_files(root: Root, passed: PassedOver, masks: str | None = None) -> Iterator[ImageFile]:
    """Yields every image file below a folder, and linked folders that may not be followed.

    Args:
        root: The folder.
        passed: Counts the files that are no images.
        masks: Path of the folder of label files, which may lie below the folder.

    Raises:
        OSError: A folder cannot be listed, or a disk is gone. Its images must not count as gone.
        StorageError: The object store does not answer.
    """
    start = len(root.folder)
    skipped = f"{masks}/" if masks is not None and masks != root.folder else "\0"
    unknown: list[ImageFile] = []
    for path, problem in root.files():
        if path.startswith(skipped):
            continue
        file = ImageFile(path[start:].lstrip("/"), path, problem)
        kind = kind_by_name(file.name)
        if kind is FileKind.IMAGE:
            yield file
        elif kind is FileKind.UNKNOWN and problem is None:
            unknown.append(file)
        elif kind is FileKind.UNKNOWN and os.path.isdir(path):
            yield file._replace(name=f"{file.name}/")
        else:
            passed.add(file.name, kind, path)
    with ThreadPoolExecutor(_READERS) as threads:
        for file, is_image in zip(unknown, threads.map(_may_be_image, unknown), strict=True):
            if is_image:
                yield file
            else:
                passed.add(file.name, FileKind.OTHER, file.path)


def _may_be_image(file: ImageFile) -> bool:
    """Whether a file's first bytes are those of an image, or cannot be read now."""
    try:
        return starts_as_image(storage.read_range(file.path, 0, START))
    except storage.NoPlainFileError:
        return False
    except OSError as error:
        if storage.is_fault(error):
            raise
        return error.errno in (EACCES, EPERM)
