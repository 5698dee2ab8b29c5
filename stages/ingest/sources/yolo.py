"""Images with YOLO's annotations: data.yaml, or a folder with `images` and `labels`."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from pipeline.engine.findings import Findings
from pipeline.errors import DataError
from pipeline.files import locations
from pipeline.files.locations import Location
from stages.ingest.annotations import yolo
from stages.ingest.annotations.shapes import AnnotatedImage
from stages.ingest.containment import Root, normalized_path
from stages.ingest.file_kind import PassedOver, is_hidden
from stages.ingest.image_files import image_files
from stages.ingest.sources._annotations import AnnotationConfig, AnnotationSource

_ENDING = ".txt"
_NAMES = "classes.txt"
_YAML_ENDINGS = (".yaml", ".yml")


class YoloConfig(AnnotationConfig):
    """Keys of a source of YOLO annotations."""

    dataset: Location
    """The file data.yaml, or the folder that holds it; or a folder with `images` and `labels`,
    where classes.txt may name the classes. Without names the numbers of classes are their names."""
    split: str | None = None
    """The key of data.yaml, or the subfolder of `images`, that holds the images: train, val, test.
    Default: `train` of data.yaml, or the whole folder `images`."""


class YoloSource(AnnotationSource):
    """Images of a YOLO data set; the label file of images/a.jpg is labels/a.txt."""

    Config = YoloConfig
    version = 1
    config: YoloConfig

    @property
    def folder(self) -> Path:
        """See `AnnotationSource.folder`."""
        place = self._place
        return place.parent if self._yaml == place else place

    @property
    def paths(self) -> Mapping[str, Path]:
        """See `Source.paths`."""
        return {str(self.config.dataset): self._place}

    def inputs(self) -> Sequence[str]:
        """See `AnnotationSource.inputs`."""
        named = [str(path) for path in (self._yaml, self._classes) if path is not None]
        return [*named, *self._labels]

    def files(self) -> Mapping[str, tuple[str, str | None]]:
        """See `AnnotationSource.files`."""
        return self._files

    def annotated(self, findings: Findings, remarks: Counter[str]) -> Iterator[AnnotatedImage]:
        """See `AnnotationSource.annotated`."""
        names, images = self._names_by_number, dict[str, str]()
        for name in self._files:
            if (other := images.setdefault(_label_of(name), name)) != name:
                what = f"{other} and {name} have the same label file"
                fix = "rename one of the images"
                findings.add(DataError(what, where=str(self.folder), fix=fix))
        lost = []
        for file, label in self._labels.items():
            image = None
            if label not in images:
                lost.append(file)
                continue
            with findings.collecting():
                image = yolo.read(file, images[label], names, findings, remarks)
            if image is not None:
                yield image
        if lost:
            what = f"{len(lost):,} label file{'s'[: len(lost) != 1]} without an image"
            fix = "add the image, or remove the label file"
            findings.add(DataError(f"{what}, first: {lost[0]}", where=self.where, fix=fix))

    @property
    def _place(self) -> Path:
        return locations.join(self.data, self.config.dataset)

    @cached_property
    def _yaml(self) -> Path | None:
        """The file data.yaml, if there is one."""
        if self._place.suffix.lower() in _YAML_ENDINGS:
            return self._place
        file = self._place / "data.yaml"
        return file if file.is_file() else None

    @cached_property
    def _classes(self) -> Path | None:
        """The file classes.txt, if it names the classes."""
        if self._yaml is not None:
            return None
        files = (self._place / _NAMES, self._place / "labels" / _NAMES)
        return next((file for file in files if file.is_file()), None)

    @property
    def _names_by_number(self) -> Mapping[int, str]:
        if self._yaml is not None:
            return self._dataset.names
        return {} if self._classes is None else yolo.read_names(str(self._classes))

    @cached_property
    def _dataset(self) -> yolo.Dataset:
        return yolo.read_dataset(str(self._yaml))

    @cached_property
    def _image_folders(self) -> Sequence[str]:
        """The folders of images, below the folder of the data set.

        Raises:
            DataError: One is missing, or leads out of it.
        """
        split, file = self.config.split, self._yaml
        if file is None:
            written: Sequence[str] = [posixpath.join("images", split or "").rstrip("/")]
            starts, where = [""], f"{self.where}.dataset: {self._place}"
        else:
            split = split or "train"
            written, where = self._dataset.splits.get(split, ()), f"{file}: {split}"
            # `path` is often that of another machine; the file itself then lies in the data set.
            starts = [self._dataset.root, ""]
        if not written:
            known = ", ".join(name for name, folders in self._dataset.splits.items() if folders)
            raise DataError("no such split", where=where, fix=f"set `split` to one of: {known}")
        return [self._found(folder, starts, where) for folder in written]

    def _found(self, written: str, starts: Sequence[str], where: str) -> str:
        # Some tools write ../train/images for a folder next to data.yaml.
        inner = written[3:] if written.startswith("../") else written
        names = [os.path.join(start, name) for start in starts for name in (written, inner)]
        for name in names:
            address = normalized_path(os.path.join(str(self.folder), name))
            inner_path = self.inside(address)
            if inner_path is not None and locations.location(address).is_dir():
                return inner_path
        what = f"no folder {written!r} in {self.folder}"
        fix = "correct the path, and keep data.yaml in the folder of the data set"
        raise DataError(what, where=where, fix=fix)

    @cached_property
    def _files(self) -> dict[str, tuple[str, str | None]]:
        found: dict[str, tuple[str, str | None]] = {}
        passed = PassedOver()
        for folder in self._image_folders:
            root = Root(self.folder / folder, follow_links=self.config.follow_links)
            for name, path, problem in image_files(root, passed):
                found[f"{folder}/{name}"] = (path, problem)
        if (remark := passed.remark()) is not None:
            self.remarks.append(remark)
        return dict(sorted(found.items()))

    @cached_property
    def _labels(self) -> dict[str, str]:
        """The label files: address, and path below the folder of the data set, sorted."""
        found = {}
        for folder in dict.fromkeys(map(_label_folder, self._image_folders)):
            place = self.folder / folder
            if not place.is_dir():
                fix = "the label file of images/a.jpg is labels/a.txt"
                raise DataError("no such folder", where=str(place), fix=fix)
            for path, problem in Root(place, follow_links=self.config.follow_links).files():
                name = path.removeprefix(f"{place}/")
                is_label = name.endswith(_ENDING) and name != _NAMES and not is_hidden(name)
                if is_label and problem is None:
                    found[path] = f"{folder}/{name}"
        if not found:
            fix = "the label file of images/a.jpg is labels/a.txt"
            raise DataError("no label file", where=str(self.folder), fix=fix)
        return dict(sorted(found.items()))


def _label_of(image: str) -> str:
    """The path of an image's label file, in the folder of the data set."""
    folder, _, name = image.rpartition("/")
    return f"{_label_folder(folder)}/{posixpath.splitext(name)[0]}{_ENDING}"


def _label_folder(folder: str) -> str:
    """The folder of the label files of a folder's images: the last `images` becomes `labels`."""
    before, found, after = f"/{folder}/".rpartition("/images/")
    return f"{before}/labels/{after}".strip("/") if found else folder
