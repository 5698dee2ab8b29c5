"""A folder of images: all of them or those of a list; with or without a folder of label files."""

import os
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from pipeline.config.config_section import Section
from pipeline.errors import DataError
from pipeline.files import file_stamps, locations
from pipeline.files.locations import LocalPath, Location
from stages.ingest.containment import Root
from stages.ingest.sources.base import IMAGE_ENDINGS, Listed, Source, listing

_Files = dict[str, tuple[str, str | None]]
"""Path and problem of files by id: the path below the folder, without the ending if there are masks
or a list of ids."""


class FolderConfig(Section):
    """Keys of a folder source."""

    images: Location
    """Folder, or address s3://bucket/prefix, of image files; subfolders are searched too."""
    ids: LocalPath | None = None
    """Text file of ids, one a line: a file's path below `images`, its ending optional. A relative
    path of this file starts at the config file. Default: every image file."""
    masks: Location | None = None
    """Folder of label files, each with the subfolder and name of its image and any ending. Web and
    unlabeled images may have some too, for the labeler `files`."""
    follow_links: bool = False
    """Whether links below the folders may lead out of them."""


class FolderSource(Source):
    """Images of a folder."""

    Config = FolderConfig
    version = 2
    config: FolderConfig

    @property
    def paths(self) -> Mapping[str, Path]:
        """See `Source.paths`."""
        folders = [folder for folder in (self.config.images, self.config.masks) if folder]
        paths = {str(folder): locations.join(self.data, folder) for folder in folders}
        if self.list_file is not None:
            paths[str(self.config.ids)] = self.list_file
        return paths

    @property
    def list_file(self) -> Path | None:
        """See `Source.list_file`."""
        return None if self.config.ids is None else self.config_folder / self.config.ids

    def list(self) -> pa.Table:
        """See `Source.list`; in the order of the list file, else sorted by path."""
        images = self._files("images", self.config.images)
        chosen = images if self.config.ids is None else self._chosen(images, self.config.ids)
        masks = self._masks(images) if self.config.masks is not None else {}
        return listing(
            Listed(
                path,
                mask := masks.get(key),
                problem=problem,
                stamp=file_stamps.stamp(path),
                mask_stamp=mask and file_stamps.stamp(mask),
            )
            for key, (path, problem) in chosen.items()
        )

    def labeled_files(self) -> Mapping[str, str]:
        """Paths of all images that have label files, by id, whether `ids` names them or not."""
        images = self._files("images", self.config.images)
        masks = self._masks(images) if self.config.masks is not None else {}
        return {key: path for key, (path, _) in images.items() if key in masks}

    def _masks(self, images: _Files) -> dict[str, str]:
        assert self.config.masks is not None
        masks = self._files("masks", self.config.masks)
        where = f"{self.where}.masks: {locations.join(self.data, self.config.masks)}"
        if without := [key for key in masks if key not in images]:
            count = f"{len(without)} mask{'s' if without[1:] else ''}"
            what = f"{count} without an image, first: {masks[without[0]][0]}"
            folder = locations.join(self.data, self.config.images)
            fix = f"add the image to {folder}, or remove the mask"
            raise DataError(what, where=where, fix=fix)
        for path, problem in masks.values():
            if problem is not None:
                raise DataError(problem, where=path, fix="or put the file itself there")
        return {key: path for key, (path, _) in masks.items()}

    def _files(self, key: str, relative: Path) -> _Files:
        """Image files below a folder, sorted."""
        folder = locations.join(self.data, relative)
        where = f"{self.where}.{key}: {folder}"
        if not folder.is_dir():
            fix = "create it, correct the path, or set `data` to the folder that it starts from"
            raise DataError("no such folder", where=where, fix=fix)
        found: _Files = {}
        by_name = self.config.masks is not None or self.config.ids is not None
        start = len(str(folder))
        for path, problem in Root(folder, follow_links=self.config.follow_links).files():
            stem, ending = os.path.splitext(path)
            if problem and os.path.isdir(path):
                stem, ending = f"{path}/", ""
            elif ending.lower() not in IMAGE_ENDINGS:
                continue
            identifier = (stem if by_name else path)[start:].lstrip("/")
            if identifier in found:
                names = sorted(os.path.basename(name) for name in (found[identifier][0], path))
                what = f"{' and '.join(names)} differ only in their ending"
                raise DataError(what, where=where, fix="keep one of them, or rename it")
            found[identifier] = (path, problem)
        if not found:
            endings = " ".join(sorted(IMAGE_ENDINGS))
            fix = f"add images with one of the endings {endings}"
            raise DataError("the folder has no image file", where=where, fix=fix)
        return dict(sorted(found.items()))

    def _chosen(self, images: _Files, ids: Path) -> _Files:
        """The images that a list file names, in the order of the list."""
        file = self.config_folder / ids
        where = f"{self.where}.ids: {file}"
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not a UTF-8 text file"
            fix = "write a text file with one image id a line, or leave out `ids`"
            raise DataError(f"cannot read the list: {reason}", where=where, fix=fix) from error
        chosen: _Files = {}
        repeated = 0
        for number, line in enumerate(lines, start=1):
            if not (text := line.strip()):
                continue
            known = text
            if text not in images and Path(text).suffix.lower() in IMAGE_ENDINGS:
                known = str(Path(text).with_suffix(""))
            if known not in images:
                folder = locations.join(self.data, self.config.images)
                what = f"line {number}: no image {text!r} in {folder}"
                raise DataError(what, where=where, fix="correct the line or remove it")
            repeated += known in chosen
            chosen[known] = images[known]
        if not chosen:
            raise DataError("the list is empty", where=where, fix="write one image id a line")
        if repeated:
            self.remarks.append(f"{repeated:,} lines of {file} repeat an image")
        return chosen
