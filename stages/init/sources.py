"""The sources that `init` proposes for what it found.

Where a folder holds just the images in question, the source is that folder, so that images which
are added later count; else it is a list.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import DataError
from stages.ingest.file_kind import FileKind, kind_by_name, without_ending
from stages.init.annotated import Annotations
from stages.init.found import Folders, Found
from stages.init.pairing import Pairs, files_below, pair
from stages.init.places import near
from stages.init.project import SourceEntry
from stages.init.splits import split

_KEPT = ", kept to score on"
_TOO_FEW = "too few labeled images to keep some back, so nothing is scored; --val names others"


def add_labeled(
    found: Found, pairs: Pairs, folders: Folders, own: list[str], kept: list[str]
) -> None:
    """Adds images with label files: those to train on, and those kept back."""
    label_folder = folders.data if folders.masks is None else folders.masks
    for role, chosen in (("labeled", own), ("val", kept)):
        if chosen:
            source = _labeled_source(found, pairs, folders, role, chosen)
            comment = f"{len(chosen)} images" + (_KEPT if role == "val" else "")
            found.sources[role] = SourceEntry(role, source, has_scheme=True, comment=comment)
            found.labels += [label_folder / pairs.masks[image] for image in chosen]
    if own and not kept and folders.val is None:
        found.findings.append(_TOO_FEW)


def add_annotated(found: Found, folders: Folders, annotated: Sequence[Annotations]) -> set[str]:
    """Adds annotations of other tools; where none are to score on, a part is kept back.

    Returns:
        The annotated images.
    """
    has_val = any(each.is_val for each in annotated) or folders.val is not None
    used = set()
    for number, each in enumerate(annotated):
        found.names += each.names
        used |= {str(PurePosixPath(each.folder, image)) for image in each.images}
        what = f"annotations of {each.source['name']}"
        found.findings.append(f"{folders.data}: {len(each.images)} images with {what}")
        behind = f"-{number}" if number else ""
        if each.is_val or has_val:
            role = "val" if each.is_val else "labeled"
            comment = f"{len(each.images)} images"
            found.sources[f"{role}{behind}"] = SourceEntry(role, each.source, comment=comment)
            continue
        for role, chosen in zip(("labeled", "val"), split(each.images), strict=True):
            if chosen:
                path = f"lists/{role}{behind}.txt"
                found.lists[path] = chosen
                comment = f"{len(chosen)} images" + (_KEPT if role == "val" else "")
                source = {**each.source, "ids": path}
                found.sources[f"{role}{behind}"] = SourceEntry(role, source, comment=comment)
    return used


def add_unlabeled(found: Found, data: Path, pairs: Pairs, without: list[str]) -> None:
    """Adds the images that nobody has labeled; without any labeled ones, they are to be labeled."""
    has_labeled = any(entry.role == "labeled" for entry in found.sources.values())
    comment = f"{len(without)} images that nobody has labeled"
    folder = "." if pairs.folders is None else pairs.folders[0]
    if _holds_only(data / folder, data, pairs.images):
        source: dict[str, Any] = {"name": "folder", "images": folder}
        if has_labeled:
            comment += "; labeled ones in the same folder count once, as labeled"
    else:
        found.lists["lists/unlabeled.csv"] = _csv([("uri",), *((image,) for image in without)])
        source = {"name": "list", "file": "lists/unlabeled.csv"}
        comment += "; add new ones to the list"
    name, role = ("unlabeled", "unlabeled") if has_labeled else ("photos", "ood")
    found.sources[name] = SourceEntry(role, source, comment=comment)


def add_val(found: Found, folders: Folders, val: Path) -> None:
    """Adds a folder of images and label files to score on.

    Raises:
        DataError: No image has a label file there.
    """
    pairs = pair(files_below(val))
    if not pairs.masks:
        fix = "put label files below it, in a folder `masks` or with names that end in _mask"
        raise DataError("no image with a label file in this folder", where=str(val), fix=fix)
    found.lists["lists/val.csv"] = _csv(_rows(pairs.masks))
    source = {"name": "list", "file": "lists/val.csv", "root": near(val, folders.data)}
    comment = f"{len(pairs.masks)} images to score on"
    found.sources["val"] = SourceEntry("val", source, has_scheme=True, comment=comment)
    found.labels += [val / mask for mask in pairs.masks.values()]


def add_web(found: Found, folders: Folders, web: Path) -> None:
    """Adds images from elsewhere.

    Raises:
        DataError: There are none.
    """
    files = [*files_below(web)]
    start = near(web, folders.data)
    if tars := [file for file in files if file.endswith(".tar")]:
        source: dict[str, Any] = {"name": "webdataset", "shards": start}
        comment = f"{len(tars)} tar archives"
    elif count := sum(kind_by_name(file) is FileKind.IMAGE for file in files):
        source = {"name": "folder", "images": start}
        comment = f"{count} images"
    else:
        fix = "name a folder of images, or of tar archives as img2dataset writes them"
        raise DataError("no image in this folder", where=str(web), fix=fix)
    found.sources["web"] = SourceEntry("ood", source, comment=comment)
    found.findings.append(f"{web}: {comment}, labeled by the labeler and used as OOD images")


def _labeled_source(
    found: Found, pairs: Pairs, folders: Folders, role: str, chosen: Sequence[str]
) -> dict[str, Any]:
    """The keys of a source of these images and their label files; adds its list."""
    masks = {image: pairs.masks[image] for image in chosen}
    ids, table = f"lists/{role}.txt", f"lists/{role}.csv"
    if folders.masks is None and pairs.folders is not None:
        images, labels = pairs.folders
        found.lists[ids] = [image.removeprefix(f"{images}/") for image in chosen]
        return {"name": "folder", "images": images, "masks": labels, "ids": ids}
    if folders.masks is None:
        found.lists[table] = _csv(_rows(masks))
        return {"name": "list", "file": table}
    if all(without_ending(image) == without_ending(mask) for image, mask in masks.items()):
        found.lists[ids] = [*chosen]
        labels = near(folders.masks, folders.data)
        return {"name": "folder", "images": ".", "masks": labels, "ids": ids}
    data, labels_in = folders.data.resolve(), folders.masks.resolve()
    whole = {str(data / image): str(labels_in / mask) for image, mask in masks.items()}
    found.lists[table] = _csv(_rows(whole))
    return {"name": "list", "file": table, "root": "/"}


def _holds_only(folder: Path, data: Path, images: Iterable[str]) -> bool:
    """Whether all images below a folder are among these, which are paths below `data`."""
    start = folder.relative_to(data)
    known = {*images}
    below = (PurePosixPath(start, file).as_posix() for file in files_below(folder))
    return all(file in known for file in below if kind_by_name(file) is FileKind.IMAGE)


def _rows(masks: Mapping[str, str]) -> list[tuple[str, ...]]:
    return [("uri", "mask_uri"), *masks.items()]


def _csv(rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table; names may hold any character but a line break."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().split("\n")[:-1]
