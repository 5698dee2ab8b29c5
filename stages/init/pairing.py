"""Which files of a folder are images, and which of them are the label files of which."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from stages.ingest.file_kind import FileKind, is_hidden, kind_by_name

_MASK_FOLDER = re.compile(
    "(masks?|labels?|annotations?|anns?|ann_dir|gt|gtfine|ground_?truths?|segmentation\\w*|"
    "labels_?t[rs]|targets?)",
    re.IGNORECASE,
)
"""Names of folders that hold label files."""
_IMAGE_FOLDER = re.compile(
    "(images?|imgs?|img_dir|photos?|pictures?|jpegimages|leftimg8bit|images_?t[rs])", re.IGNORECASE
)
_MASK_ENDING = re.compile(
    "[_.-](masks?|labels?|labelids|labeltrainids|gt|seg|segmentation|annotation|"
    "gtfine_(labelids|labeltrainids|color|instanceids))$",
    re.IGNORECASE,
)
"""Ends of the names of label files, before the ending."""
_IMAGE_ENDING = re.compile("[_.-](image|img|rgb|leftimg8bit|0000)$", re.IGNORECASE)
_NO_CLASSES = re.compile("(instanceids|color)$", re.IGNORECASE)
"""Files of published sets beside the label files, which hold no class ids."""
_BETTER = re.compile("labeltrainids$", re.IGNORECASE)


@dataclass(frozen=True)
class Pairs:
    """The images of a folder.

    Attributes:
        images: Paths below the folder, sorted; label files are none of them.
        masks: The label file of each image that has one, by the image's path.
        lonely: Label files of no image.
        folders: The folders of images and of label files below the folder, if each label file has
            the path of its image there, but for the ending; else None.
    """

    images: tuple[str, ...]
    masks: Mapping[str, str]
    lonely: tuple[str, ...] = ()
    folders: tuple[str, str] | None = None


def files_below(folder: Path) -> Iterator[str]:
    """Paths of all files below a folder but hidden ones, sorted; links are not followed."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        inside = PurePosixPath(Path(root).relative_to(folder).as_posix())
        yield from (str(inside / name) for name in sorted(names) if not is_hidden(name))


def pair(files: Iterable[str]) -> Pairs:
    """Pairs images with label files by the names of files and folders.

    A label file lies in a folder such as `masks`, or its name ends in a word such as `_mask`; what
    is left of its path is that of the image. A PNG beside an image of another format with the same
    name is its label file, too.

    Args:
        files: Paths below a folder.
    """
    pictures = [file for file in files if kind_by_name(file) is FileKind.IMAGE]
    labels = [file for file in pictures if _is_label_file(file)]
    named = {*labels}
    images = [file for file in pictures if file not in named]
    if not labels:
        labels = _beside(images)
        named = {*labels}
        images = [file for file in images if file not in named]
    by_key: defaultdict[str, list[str]] = defaultdict(list)
    for file in labels:
        if not _NO_CLASSES.search(_stem(file)):
            by_key[_key(file)].append(file)
    masks = {}
    for image in images:
        if found := by_key.get(_key(image)):
            masks[image] = min(found, key=lambda file: (not _BETTER.search(_stem(file)), file))
    used = {_key(image) for image in masks}
    lonely = tuple(file for key, own in by_key.items() if key not in used for file in own)
    return Pairs(tuple(sorted(images)), masks, lonely, _parallel(images, masks))


def paired_with(images: Iterable[str], masks: Iterable[str]) -> dict[str, str]:
    """The label file of each image, from two folders: the same path but for the ending."""
    of_key = {_key(file): file for file in masks if kind_by_name(file) is FileKind.IMAGE}
    return {image: of_key[_key(image)] for image in images if _key(image) in of_key}


def _is_label_file(file: str) -> bool:
    *folders, _ = PurePosixPath(file).parts
    in_folder = any(_MASK_FOLDER.fullmatch(name) for name in folders)
    return in_folder or _MASK_ENDING.search(_stem(file)) is not None


def _beside(images: Iterable[str]) -> list[str]:
    """PNGs that have the name of an image of another format beside them."""
    of_stem: defaultdict[str, list[str]] = defaultdict(list)
    for file in images:
        of_stem[str(PurePosixPath(file).with_suffix(""))].append(file)
    return [
        file
        for own in of_stem.values()
        if len(own) == 2
        for file in own
        if file.lower().endswith(".png") and not own[own[0] == file].lower().endswith(".png")
    ]


def _stem(file: str) -> str:
    return PurePosixPath(file).stem


def _key(file: str) -> str:
    """What the paths of an image and of its label file have in common."""
    *folders, _ = PurePosixPath(file).parts
    plain = [
        name
        for name in folders
        if not (_MASK_FOLDER.fullmatch(name) or _IMAGE_FOLDER.fullmatch(name))
    ]
    stem = _IMAGE_ENDING.sub("", _MASK_ENDING.sub("", _stem(file)))
    return "/".join([*plain, stem]).lower()


def _parallel(images: Iterable[str], masks: Mapping[str, str]) -> tuple[str, str] | None:
    """The two folders, if all label files lie in one as their images do in the other."""
    if not masks:
        return None
    roots = Counter(
        (str(PurePosixPath(image).parents[depth]), str(PurePosixPath(mask).parents[depth]))
        for image, mask in masks.items()
        for depth in [_common_depth(image, mask)]
        if depth is not None
    )
    if len(roots) != 1 or roots.total() != len(masks):
        return None
    [(pair_of_folders, _)] = roots.items()
    inside = f"{pair_of_folders[0]}/"
    is_all = all(image.startswith(inside) for image in images)
    return pair_of_folders if is_all and "." not in pair_of_folders else None


def _common_depth(image: str, mask: str) -> int | None:
    """How many of the last folders both paths share, below the folders that tell them apart."""
    first, second = PurePosixPath(image), PurePosixPath(mask)
    if first.stem != second.stem:
        return None
    own, other = first.parts[:-1], second.parts[:-1]
    if len(own) != len(other):
        return None
    different = [
        depth for depth, pair in enumerate(zip(own, other, strict=True)) if pair[0] != pair[1]
    ]
    return len(own) - 1 - different[0] if len(different) == 1 else None
