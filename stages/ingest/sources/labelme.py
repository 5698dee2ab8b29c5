"""Images with annotations from LabelMe: a JSON file beside each image, or in another folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from pipeline.engine.findings import Findings
from pipeline.errors import DataError
from pipeline.files import locations
from pipeline.files.locations import Location
from stages.ingest.annotations import labelme
from stages.ingest.annotations.shapes import AnnotatedImage
from stages.ingest.containment import Root, normalized_path
from stages.ingest.file_kind import PassedOver, is_hidden, without_ending
from stages.ingest.image_files import image_files
from stages.ingest.sources._annotations import AnnotationConfig, AnnotationSource
from stages.ingest.wrong_source import missing_folder

_ENDING = ".json"


class LabelmeConfig(AnnotationConfig):
    """Keys of a source of LabelMe annotations."""

    images: Location
    """Folder, or address s3://bucket/prefix, of image files; subfolders are searched too."""
    annotations: Location | None = None
    """Folder of the JSON files, if they are not beside the images."""


class LabelmeSource(AnnotationSource):
    """Images of a folder; a JSON file belongs to its `imagePath`, else to the image of its name."""

    Config = LabelmeConfig
    version = 1
    config: LabelmeConfig

    @property
    def folder(self) -> Path:
        """See `AnnotationSource.folder`."""
        return locations.join(self.data, self.config.images)

    @property
    def paths(self) -> Mapping[str, Path]:
        """See `Source.paths`."""
        keys = [path for path in (self.config.images, self.config.annotations) if path is not None]
        return {str(path): locations.join(self.data, path) for path in keys}

    def inputs(self) -> Sequence[str]:
        """See `AnnotationSource.inputs`."""
        if not self._json_folder.is_dir():
            where = f"{self.where}.annotations: {self._json_folder}"
            raise missing_folder(self._json_folder, where)
        root = Root(self._json_folder, follow_links=self.config.follow_links)
        found = sorted(path for path, problem in root.files() if problem is None)
        start = len(root.folder)
        json_files = [path for path in found if path.lower().endswith(_ENDING)]
        files = [path for path in json_files if not is_hidden(path[start:].lstrip("/"))]
        if not files:
            fix = "save LabelMe's JSON files there, or name their folder with `annotations`"
            raise DataError("the folder has no JSON file", where=root.folder, fix=fix)
        return files

    def files(self) -> Mapping[str, tuple[str, str | None]]:
        """See `AnnotationSource.files`."""
        return self._files

    def annotated(self, findings: Findings, remarks: Counter[str]) -> Iterator[AnnotatedImage]:
        """See `AnnotationSource.annotated`."""
        by_stem: dict[str, list[str]] = {}
        for name in self._files:
            by_stem.setdefault(without_ending(name), []).append(name)
        lost: list[str] = []
        for file in self.inputs():
            image = None
            with findings.collecting():
                if (image := labelme.read(file, findings, remarks)) is None:
                    remarks["JSON files of other tools, passed over"] += 1
            if image is None:
                continue
            if (own := self._name(file, image.name, by_stem)) is None:
                lost.append(file)
            else:
                yield replace(image, name=own)
        if lost:
            what = f"{len(lost):,} annotation file{'s'[: len(lost) != 1]} without an image"
            fix = f"add the image to {self.folder}, or remove the file"
            findings.add(DataError(f"{what}, first: {lost[0]}", where=self.where, fix=fix))

    def _name(self, file: str, image_path: str, by_stem: Mapping[str, Sequence[str]]) -> str | None:
        """The image that a JSON file belongs to."""
        address = normalized_path(os.path.join(os.path.dirname(file), image_path))
        name = self.inside(address)
        if image_path and name in self._files:
            return name
        same = by_stem.get(file.removeprefix(f"{self._json_folder}/")[: -len(_ENDING)], ())
        return same[0] if len(same) == 1 else None

    @property
    def _json_folder(self) -> Path:
        other = self.config.annotations
        return self.folder if other is None else locations.join(self.data, other)

    @cached_property
    def _files(self) -> dict[str, tuple[str, str | None]]:
        root, passed = Root(self.folder, follow_links=self.config.follow_links), PassedOver()
        found = sorted(image_files(root, passed))
        del passed.counts[_ENDING]  # they belong to images, or are remarked
        if (remark := passed.remark()) is not None:
            self.remarks.append(remark)
        return {name: (path, problem) for name, path, problem in found}
