"""Looks at the folders of a new project, and proposes its sources of images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import DataError
from stages.ingest.file_kind import FileKind, kind_by_name
from stages.init import sources
from stages.init.annotated import find_annotations
from stages.init.found import Folders, Found
from stages.init.pairing import Pairs, files_below, pair, paired_with
from stages.init.splits import split


def look(folders: Folders) -> Found:
    """Finds images, and their label files or annotations.

    Raises:
        DataError: A folder is missing, or has no image; or annotations are broken.
    """
    found = Found()
    apart = [each for each in (folders.val, folders.web, folders.masks) if each is not None]
    files = _files(folders.data, apart)
    pairs = _pairs(files, folders)
    if not pairs.images and folders.web is None:
        fix = "name the folder of your photos"
        raise DataError("no image in this folder", where=str(folders.data), fix=fix)
    if not pairs.masks and (annotated := find_annotations(folders.data, files)):
        used = sources.add_annotated(found, folders, annotated)
        without = [image for image in pairs.images if image not in used]
    else:
        _say(found, pairs, folders.data)
        own, kept = split([*pairs.masks])
        if folders.val is not None:
            own, kept = sorted(pairs.masks), []
        sources.add_labeled(found, pairs, folders, own, kept)
        without = [image for image in pairs.images if image not in pairs.masks]
    if folders.val is not None:
        sources.add_val(found, folders, folders.val)
    if without:
        sources.add_unlabeled(found, folders.data, pairs, without)
    if folders.web is not None:
        sources.add_web(found, folders, folders.web)
    return found


def _files(data: Path, apart: Iterable[Path]) -> list[str]:
    """All files below the folder of images, but for those in the other folders."""
    for folder in (data, *apart):
        if not folder.is_dir():
            raise DataError("no such folder", where=str(folder), fix="correct its path")
    inside = [each.resolve() for each in apart]
    start = data.resolve()
    return [
        file
        for file in files_below(data)
        if not any((start / file).is_relative_to(each) for each in inside)
    ]


def _pairs(files: Iterable[str], folders: Folders) -> Pairs:
    if folders.masks is None:
        return pair(files)
    images = [file for file in files if kind_by_name(file) is FileKind.IMAGE]
    labels = [f for f in files_below(folders.masks) if kind_by_name(f) is FileKind.IMAGE]
    found = paired_with(images, labels)
    if not found:
        what = f"none of {len(labels)} label files has an image"
        fix = "give each label file the name of its image, with any ending"
        raise DataError(what, where=str(folders.masks), fix=fix)
    lonely = tuple(sorted({*labels} - {*found.values()}))
    return Pairs(tuple(images), found, lonely)


def _say(found: Found, pairs: Pairs, folder: Path) -> None:
    count = len(pairs.images)
    found.findings.append(
        f"{folder}: {count} image{'s'[: count != 1]}, {len(pairs.masks)} with a label file"
    )
    if pairs.lonely:
        count = len(pairs.lonely)
        what = f"label file{'s'[: count != 1]} without an image"
        found.findings.append(f"{count} {what}, first: {pairs.lonely[0]}")
