"""A folder of images, whole or by a list of ids, with or without a folder of label files."""

import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import DataError
from pipeline.section import Section
from stages.ingest.sources.base import Listed, Source

IMAGE_ENDINGS = frozenset(
    [
        ".avif",
        ".bmp",
        ".gif",
        ".jfif",
        ".jpeg",
        ".jpg",
        ".jp2",
        ".png",
        ".ppm",
        ".pgm",
        ".tif",
        ".tiff",
        ".webp",
    ]
)


class FolderConfig(Section):
    """Keys of a folder source."""

    images: Path
    """Folder of image files; subfolders are searched too."""
    ids: Path | None = None
    """Text file of ids, one a line: a file's path below `images`, its ending optional. The file's
    own relative path starts at the config file. Default: every image file."""
    masks: Path | None = None
    """Folder of label files, each at its image's place and name, with any ending. Web and unlabeled
    images may have some too, for the labeler `files`."""


class FolderSource(Source):
    """Images of a local folder."""

    Config = FolderConfig
    version = 1
    config: FolderConfig

    def list(self) -> list[Listed]:
        """See `Source.list`; in the order of the list file, else sorted by path."""
        images = self._files("images", self.config.images)
        chosen = images if self.config.ids is None else self._chosen(images, self.config.ids)
        if self.config.masks is None:
            return [Listed(path) for path in chosen.values()]
        masks = self._files("masks", self.config.masks)
        folder = self.data / self.config.masks
        if without := [key for key in masks if key not in images]:
            count = f"{len(without)} mask{'s' if without[1:] else ''}"
            what = f"{count} without an image, first: {masks[without[0]]}"
            fix = f"add the image to {self.data / self.config.images}, or remove the mask"
            raise DataError(what, where=f"{self.where}.masks: {folder}", fix=fix)
        return [Listed(path, masks.get(key)) for key, path in chosen.items()]

    def _files(self, key: str, relative: Path) -> dict[str, Path]:
        """Image files below a folder by path without ending, sorted."""
        folder = self.data / relative
        where = f"{self.where}.{key}: {folder}"
        if not folder.is_dir():
            fix = "create it, correct the path, or set `data` to the folder it starts from"
            raise DataError("no such folder", where=where, fix=fix)
        found: dict[str, Path] = {}
        for path in _files_below(folder):
            stem, ending = os.path.splitext(path)
            if ending.lower() not in IMAGE_ENDINGS:
                continue
            identifier = stem[len(str(folder)) :].lstrip("/")
            if identifier in found:
                names = sorted((found[identifier].name, os.path.basename(path)))
                what = f"{' and '.join(names)} differ only in their ending"
                raise DataError(what, where=where, fix="keep one of them, or rename it")
            found[identifier] = Path(path)
        if not found:
            endings = " ".join(sorted(IMAGE_ENDINGS))
            raise DataError(
                "no image file in the folder", where=where, fix=f"put in any of {endings}"
            )
        return dict(sorted(found.items()))

    def _chosen(self, images: dict[str, Path], ids: Path) -> dict[str, Path]:
        """The images that a list file names, in its order."""
        file = self.beside / ids
        where = f"{self.where}.ids: {file}"
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not a UTF-8 text file"
            fix = "write a text file of one image id a line, or leave `ids` out"
            raise DataError(f"cannot read the list: {reason}", where=where, fix=fix) from error
        chosen: dict[str, Path] = {}
        for number, line in enumerate(lines, start=1):
            if not (text := line.strip()):
                continue
            known = text
            if text not in images and Path(text).suffix.lower() in IMAGE_ENDINGS:
                known = str(Path(text).with_suffix(""))
            if known not in images:
                what = f"line {number}: no image {text!r} in {self.data / self.config.images}"
                raise DataError(what, where=where, fix="correct the line or remove it")
            chosen[known] = images[known]
        if not chosen:
            raise DataError("the list is empty", where=where, fix="write one image id a line")
        return chosen


def _files_below(folder: Path) -> Iterator[str]:
    """Paths of files; a subfolder that cannot be listed is an error: its images are not gone."""

    def refuse(error: OSError) -> None:
        raise error

    for root, _, names in os.walk(folder, onerror=refuse):
        for name in names:
            yield os.path.join(root, name)
