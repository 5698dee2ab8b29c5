"""Looks at a folder, and proposes its sources of images."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pipeline.errors import DataError
from stages.ingest.file_kind import FileKind, kind_by_name
from stages.init.annotated import Annotations, find_annotations
from stages.init.pairing import Pairs, files_below, pair, paired_with
from stages.init.places import near
from stages.init.project import SourceEntry
from stages.init.splits import split


@dataclass
class Look:
    """What was found in the folders of a new project.

    Attributes:
        sources: Sources by name.
        lists: Lists of image paths that the sources name, by path from the config.
        labels: Label files.
        names: Of annotations: how many shapes have each name.
        findings: What was found, in lines.
    """

    sources: dict[str, SourceEntry] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)
    labels: list[Path] = field(default_factory=list)
    names: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Folders:
    """The folders that a new project starts from.

    Attributes:
        data: The folder of the user's own images.
        masks: Folder of their label files, if they are not found below `data`.
        val: Folder of images and label files to score on.
        web: Folder of images from elsewhere, or of tar archives.
    """

    data: Path
    masks: Path | None = None
    val: Path | None = None
    web: Path | None = None


def look(folders: Folders) -> Look:
    """Finds images and label files.

    Raises:
        DataError: A folder is missing, or has no image.
    """
    found = Look()
    others = {each for each in (folders.val, folders.web, folders.masks) if each is not None}
    pairs = _pairs(folders.data, folders.masks, skipped=others)
    if not pairs.masks and (
        annotated := find_annotations(folders.data, [*files_below(folders.data)])
    ):
        _add_annotated(found, pairs, folders, annotated)
        return found
    if not pairs.images and folders.web is None:
        fix = "name the folder of your photos"
        raise DataError("no image in this folder", where=str(folders.data), fix=fix)
    _say(found, pairs, folders.data)
    own, kept = split([*pairs.masks])
    if folders.val is not None:
        own, kept = sorted(pairs.masks), []
    _add_labeled(found, pairs, folders, own, kept)
    if folders.val is not None:
        _add_val(found, folders, folders.val)
    if without := [image for image in pairs.images if image not in pairs.masks]:
        _add_unlabeled(found, pairs, folders, without)
    if folders.web is not None:
        _add_web(found, folders, folders.web)
    label_folder = folders.data if folders.masks is None else folders.masks
    found.labels += [label_folder / pairs.masks[image] for image in own + kept]
    return found


def _add_annotated(
    found: Look, pairs: Pairs, folders: Folders, annotated: Sequence[Annotations]
) -> None:
    """Sources of annotations; of those that are not split, a part is kept to score on."""
    has_val = any(each.is_val for each in annotated) or folders.val is not None
    used = set()
    for number, each in enumerate(annotated):
        found.names += each.names
        used |= {str(PurePosixPath(each.folder, image)) for image in each.images}
        behind = f"-{number + 1}" if annotated[1:] and number > 1 else ""
        what = f"annotations of {each.source['name']}"
        found.findings.append(f"{folders.data}: {len(each.images)} images with {what}")
        if each.is_val or has_val:
            role = "val" if each.is_val else "labeled"
            comment = f"{len(each.images)} images"
            found.sources[f"{role}{behind}"] = SourceEntry(role, each.source, comment=comment)
            continue
        for role, chosen in zip(("labeled", "val"), split(each.images), strict=True):
            if chosen:
                path = f"lists/{role}{behind}.txt"
                found.lists[path] = chosen
                comment = f"{len(chosen)} images" + (", kept to score on" if role == "val" else "")
                source = {**each.source, "ids": path}
                found.sources[f"{role}{behind}"] = SourceEntry(role, source, comment=comment)
    if folders.val is not None:
        _add_val(found, folders, folders.val)
    if without := [image for image in pairs.images if image not in used]:
        source = {"name": "folder", "images": "."}
        comment = f"{len(without)} images without annotations; those with some count once"
        found.sources["unlabeled"] = SourceEntry("unlabeled", source, comment=comment)
    if folders.web is not None:
        _add_web(found, folders, folders.web)


def _pairs(data: Path, masks: Path | None, skipped: Iterable[Path]) -> Pairs:
    for folder in filter(None, (data, masks, *skipped)):
        if not folder.is_dir():
            raise DataError("no such folder", where=str(folder), fix="correct its path")
    apart = [each for each in skipped if each.is_relative_to(data) and each != data]
    files = [
        file
        for file in files_below(data)
        if not any((data / file).is_relative_to(each) for each in apart)
    ]
    if masks is None:
        return pair(files)
    images = [file for file in files if kind_by_name(file) is FileKind.IMAGE]
    labels = [file for file in files_below(masks) if kind_by_name(file) is FileKind.IMAGE]
    found = paired_with(images, labels)
    if not found:
        fix = "give each label file the name of its image, with any ending"
        raise DataError(
            f"none of {len(labels)} label files has an image", where=str(masks), fix=fix
        )
    lonely = tuple(sorted({*labels} - {*found.values()}))
    return Pairs(tuple(images), found, lonely)


def _say(found: Look, pairs: Pairs, folder: Path) -> None:
    count = len(pairs.images)
    found.findings.append(
        f"{folder}: {count} image{'s'[: count != 1]}, {len(pairs.masks)} with a label file"
    )
    if pairs.lonely:
        count = len(pairs.lonely)
        what = f"label file{'s'[: count != 1]} without an image"
        found.findings.append(f"{count} {what}, first: {pairs.lonely[0]}")


def _add_labeled(
    found: Look, pairs: Pairs, folders: Folders, own: list[str], kept: list[str]
) -> None:
    """Sources of labeled images, and of those to score on."""
    for role, chosen in (("labeled", own), ("val", kept)):
        if chosen:
            path = f"lists/{role}.txt"
            found.sources[role] = SourceEntry(
                role,
                _labeled_source(pairs, folders, path),
                has_scheme=True,
                comment=f"{len(chosen)} images" + (", kept to score on" if role == "val" else ""),
            )
            is_table = folders.masks is None and pairs.folders is None
            name = path.replace(".txt", ".csv") if is_table else path
            found.lists[name] = _lines(pairs, folders, chosen)
    if own and not kept and folders.val is None:
        found.findings.append(
            "too few labeled images to keep some back, so nothing is scored; --val names others"
        )


def _labeled_source(pairs: Pairs, folders: Folders, path: str) -> dict[str, object]:
    if folders.masks is None and pairs.folders is not None:
        images, masks = pairs.folders
        return {"name": "folder", "images": images, "masks": masks, "ids": path}
    if folders.masks is not None:
        masks = near(folders.masks, folders.data)
        return {"name": "folder", "images": ".", "masks": masks, "ids": path}
    return {"name": "list", "file": path.replace(".txt", ".csv")}


def _lines(pairs: Pairs, folders: Folders, chosen: Iterable[str]) -> list[str]:
    """Ids for a folder source, or the lines of a table for a list source."""
    if folders.masks is not None:
        return [*chosen]
    if pairs.folders is not None:
        start = len(pairs.folders[0]) + 1
        return [image[start:] for image in chosen]
    return _table(pairs, chosen)


def _table(pairs: Pairs, chosen: Iterable[str]) -> list[str]:
    """The lines of a table of images and their label files; names may hold any character."""
    return _csv([("uri", "mask_uri"), *((image, pairs.masks[image]) for image in chosen)])


def _csv(rows: Iterable[Sequence[str]]) -> list[str]:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().split("\n")[:-1]


def _add_unlabeled(found: Look, pairs: Pairs, folders: Folders, without: list[str]) -> None:
    """The images without a label file; without any labeled one, those to label."""
    role = "unlabeled" if pairs.masks else "ood"
    comment = f"{len(without)} images without a label file"
    if pairs.masks and folders.masks is None and pairs.folders is None:
        found.lists["lists/unlabeled.csv"] = _csv([("uri",), *((image,) for image in without)])
        source: dict[str, object] = {"name": "list", "file": "lists/unlabeled.csv"}
        comment += "; add new ones to the list"
    else:
        images = pairs.folders[0] if pairs.folders is not None else "."
        source = {"name": "folder", "images": images}
        if pairs.masks:
            comment += "; labeled ones in the same folder count once, as labeled"
    name = "unlabeled" if pairs.masks else "photos"
    found.sources[name] = SourceEntry(role, source, comment=comment)


def _add_val(found: Look, folders: Folders, val: Path) -> None:
    pairs = pair(files_below(val))
    if not pairs.masks:
        fix = "put label files below it, in a folder `masks` or with names that end in _mask"
        raise DataError("no image with a label file in this folder", where=str(val), fix=fix)
    start = near(val, folders.data)
    labeled = [image for image in pairs.images if image in pairs.masks]
    found.lists["lists/val.csv"] = _table(pairs, labeled)
    source = {"name": "list", "file": "lists/val.csv", "root": start}
    comment = f"{len(labeled)} images to score on"
    found.sources["val"] = SourceEntry("val", source, has_scheme=True, comment=comment)
    found.labels += [val / mask for mask in pairs.masks.values()]


def _add_web(found: Look, folders: Folders, web: Path) -> None:
    files = [*files_below(web)]
    start = near(web, folders.data)
    if tars := [file for file in files if file.endswith(".tar")]:
        source: dict[str, object] = {"name": "webdataset", "shards": start}
        comment = f"{len(tars)} tar archives"
    elif count := sum(kind_by_name(file) is FileKind.IMAGE for file in files):
        source = {"name": "folder", "images": start}
        comment = f"{count} images"
    else:
        fix = "name a folder of images, or of tar archives as img2dataset writes them"
        raise DataError("no image in this folder", where=str(web), fix=fix)
    found.sources["web"] = SourceEntry("ood", source, comment=comment)
    found.findings.append(f"{web}: {comment}, labeled by the labeler and used as OOD images")
