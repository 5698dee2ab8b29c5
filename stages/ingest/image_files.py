"""The image files of a folder; all other files are counted."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from errno import EACCES, EPERM

from pipeline.files import storage
from pipeline.images.file_kinds import START, starts_as_image
from stages.ingest.containment import Root
from stages.ingest.file_kind import FileKind, PassedOver, kind_by_name

_READERS = 16
"""Threads that look into files whose names do not say what they are."""

ImageFile = tuple[str, str, str | None]
"""A file's path below its folder (that of a linked folder ends with a slash), its path or address,
and why it must not be read, if so. A plain tuple, since there may be a million."""


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
    unknown: list[tuple[str, str]] = []
    for path, problem in root.files():
        if path.startswith(skipped):
            continue
        name = path[start:].lstrip("/")
        kind = kind_by_name(name)
        if kind is FileKind.IMAGE:
            yield name, path, problem
        elif kind is FileKind.UNKNOWN and problem is None:
            unknown.append((name, path))
        elif kind is not FileKind.HIDDEN and problem is not None and os.path.isdir(path):
            yield f"{name}/", path, problem
        else:
            passed.add(name, kind, path)
    with ThreadPoolExecutor(_READERS) as threads:
        answers = threads.map(_may_be_image, (path for _, path in unknown))
        for (name, path), is_image in zip(unknown, answers, strict=True):
            if is_image:
                yield name, path, None
            else:
                passed.add(name, FileKind.OTHER, path)


def _may_be_image(path: str) -> bool:
    """Whether a file's first bytes are those of an image, or cannot be read now."""
    try:
        return starts_as_image(storage.read_range(path, 0, START))
    except storage.NoPlainFileError:
        return False
    except OSError as error:
        if storage.is_fault(error):
            raise
        return error.errno in (EACCES, EPERM)
