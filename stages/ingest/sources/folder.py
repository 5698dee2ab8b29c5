"""A folder of images: all of them or those of a list; with or without a folder of label files."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa

from pipeline.config.config_section import Section
from pipeline.errors import DataError
from pipeline.files import file_stamps, locations
from pipeline.files.config_paths import LocalPath
from pipeline.files.locations import Location
from stages.ingest import text_list
from stages.ingest.containment import Root
from stages.ingest.file_kind import (
    IMAGE_ENDINGS,
    UNDECODED_ENDINGS,
    PassedOver,
    ending_of,
    without_ending,
)
from stages.ingest.image_files import ImageFile, image_files
from stages.ingest.sources.base import Listed, Source, listing
from stages.ingest.wrong_source import empty_folder, missing_folder

_Files = dict[str, ImageFile]
"""Files by id: the path below the folder, without the ending if there are masks or a list."""


class FolderConfig(Section):
    """Keys of a folder source."""

    images: Location
    """Folder, or address s3://bucket/prefix, of image files; subfolders are searched too."""
    ids: LocalPath | None = None
    """Text file of ids, one a line: a file's path below `images`, its ending optional. A relative
    path of this file starts at the config file. Default: every image file."""
    masks: Location | None = None
    """Folder of label files, each with the subfolder and name of its image and any ending. Web and
    unlabeled images may have some too, for the labeler `files`. Labeled images are those that have
    one, unless `ids` names them."""
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
        return self.config.ids

    def list(self) -> pa.Table:
        """See `Source.list`; in the order of the list file, else sorted by path."""
        images = self._files("images", self.config.images)
        chosen = images if self.config.ids is None else self._chosen(images, self.config.ids)
        masks = self._masks(images) if self.config.masks is not None else {}
        if self.only_masked and self.config.ids is None and masks:
            chosen = self._masked(chosen, masks)
        return listing(
            Listed(
                path,
                mask := masks.get(key),
                problem=problem,
                stamp=file_stamps.stamp(path),
                mask_stamp=mask and file_stamps.stamp(mask),
            )
            for key, (_, path, problem) in chosen.items()
        )

    def labeled_files(self) -> Mapping[str, str]:
        """Paths of all images that have label files, by the line of `ids` that names them."""
        images = self._files("images", self.config.images)
        masks = self._masks(images) if self.config.masks is not None else {}
        keys = _keys_by_name(images)
        return {
            key if keys.get(key, key) == key else name: path
            for key, (name, path, _) in images.items()
            if key in masks
        }

    def _masks(self, images: _Files) -> dict[str, str]:
        assert self.config.masks is not None
        masks = self._files("masks", self.config.masks)
        where = f"{self.where}.masks: {locations.join(self.data, self.config.masks)}"
        if without := [key for key in masks if key not in images]:
            count = f"{len(without)} mask{'s' if without[1:] else ''}"
            what = f"{count} without an image, first: {masks[without[0]][1]}"
            folder = locations.join(self.data, self.config.images)
            fix = f"add the image to {folder}, or remove the mask"
            raise DataError(what, where=where, fix=fix)
        for _, path, problem in masks.values():
            if problem is not None:
                raise DataError(problem, where=path, fix="or put the file itself there")
        return {key: path for key, (_, path, _) in masks.items()}

    def _masked(self, images: _Files, masks: Mapping[str, str]) -> _Files:
        """The images that have label files; a remark counts the others."""
        chosen = {key: file for key, file in images.items() if key in masks}
        if others := len(images) - len(chosen):
            source = f"source: {{name: folder, images: {self.config.images}}}"
            self.remarks.append(
                f"{others:,} of {len(images):,} images without a label file passed over; to use "
                f"them, add a source {{role: unlabeled, {source}}}"
            )
        return chosen

    def _files(self, key: str, relative: Path) -> _Files:
        """Image files below a folder, sorted; a remark counts the other files."""
        folder = locations.join(self.data, relative)
        where = f"{self.where}.{key}: {folder}"
        if not folder.is_dir():
            raise missing_folder(folder, where)
        masks = self.config.masks if key == "images" else None
        below = None if masks is None else str(locations.join(self.data, masks))
        root, passed = Root(folder, follow_links=self.config.follow_links), PassedOver()
        found = self._by_id(image_files(root, passed, below), where)
        if not found:
            endings = " ".join(sorted(IMAGE_ENDINGS - UNDECODED_ENDINGS))
            fix = f"add images with one of the endings {endings}"
            raise empty_folder("image", passed, where, fix)
        if (remark := passed.remark()) is not None:
            self.remarks.append(remark if key == "images" else f"{key}: {remark}")
        return dict(sorted(found.items()))

    def _by_id(self, files: Iterable[ImageFile], where: str) -> _Files:
        if self.config.masks is None and self.config.ids is None:
            return {file[0]: file for file in files}
        found: _Files = {}
        # Those that are not decoded come last: the same picture may lie there in another format.
        for file in sorted(files, key=lambda file: ending_of(file[0]) in UNDECODED_ENDINGS):
            name, path, _ = file
            key = without_ending(name)
            if key in found and ending_of(name) in UNDECODED_ENDINGS:
                key = name
            if key in found:
                names = sorted(os.path.basename(one) for one in (found[key][1], path))
                what = f"{' and '.join(names)} differ only in their ending"
                raise DataError(what, where=where, fix="keep one of them, or rename it")
            found[key] = file
        return found

    def _chosen(self, images: _Files, ids: Path) -> _Files:
        """The images that a list file names, in the order of the list."""
        where = f"{self.where}.ids: {ids}"
        names = _keys_by_name(images)
        chosen: _Files = {}
        repeated = 0
        for number, line in enumerate(text_list.read_ids(ids, where), start=1):
            # A name may begin or end with blanks.
            text = line if line in images or line in names else line.strip(" \t\r")
            if not text:
                continue
            known = text if text in images else names.get(text, text)
            if known not in images and ending_of(text) in IMAGE_ENDINGS:
                known = str(Path(text).with_suffix(""))
            if known not in images:
                folder = locations.join(self.data, self.config.images)
                what = f"line {number}: no image {text!r} in {folder}"
                raise DataError(what, where=where, fix="correct the line or remove it")
            if names.get(text, known) != known:
                other = images[known][0]
                what = f"line {number}: {text!r} may be that image or {other!r}"
                fix = f"write {names[text]!r} for the first, {other!r} for the other"
                raise DataError(what, where=where, fix=fix)
            repeated += known in chosen
            chosen[known] = images[known]
        if not chosen:
            raise DataError("the list is empty", where=where, fix="write one image id a line")
        if repeated:
            self.remarks.append(f"{repeated:,} lines of {ids} repeat an image")
        return chosen


def _keys_by_name(images: _Files) -> dict[str, str]:
    """The id of each image by its path below the folder, with its ending."""
    return {name: key for key, (name, _, _) in images.items()}
