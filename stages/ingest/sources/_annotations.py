"""What the sources of annotated images share: the list of images, and their drawn label files."""

from __future__ import annotations

import hashlib
import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Annotated, ClassVar

import pyarrow as pa
from pydantic import BeforeValidator, Field

from pipeline import stopping
from pipeline.config.config_section import Section
from pipeline.engine.findings import Findings
from pipeline.errors import DataError
from pipeline.files import file_stamps
from pipeline.files.config_paths import LocalPath
from stages.ingest import text_list
from stages.ingest.annotation_index import AnnotationIndex, read_index
from stages.ingest.annotations import drawing
from stages.ingest.annotations.class_names import ClassNames
from stages.ingest.annotations.shapes import AnnotatedImage
from stages.ingest.containment import Root, normalized_path
from stages.ingest.drawn_labels import DrawnLabels
from stages.ingest.sources.base import Drawing, Listed, Source, listing
from stages.ingest.wrong_source import missing_folder

_BATCH = 64
"""Images that are drawn in parallel; their shapes are in memory."""


def _as_text(name: object) -> object:
    return str(name) if isinstance(name, int) and not isinstance(name, bool) else name


class AnnotationConfig(Section):
    """Keys of all sources of annotated images."""

    names: dict[Annotated[str, BeforeValidator(_as_text)], str | None] = Field(default_factory=dict)
    """Classes of the names in the annotations that are no names or concepts of classes; null or
    "ignore" = ignored pixels."""
    rest: str | None = None
    """Class of the pixels without an annotation, or "ignore"; default: the class `background` if
    that is the first one, else "ignore"."""
    ids: LocalPath | None = None
    """Text file of the images to use, one a line: their paths below the folder of images. A
    relative path of this file starts at the config file. Default: all."""
    follow_links: bool = False
    """Whether links below the folder of images may lead out of it."""


class AnnotationSource(Source):
    """Images with annotations, of which label files are drawn into the run's artifacts."""

    draws: ClassVar[bool] = True
    default_rest: ClassVar[str | None] = None
    """The value of `rest` where a config has none."""
    config: AnnotationConfig

    @property
    @abstractmethod
    def folder(self) -> Path:
        """Folder of the images, which no name may leave."""

    @abstractmethod
    def inputs(self) -> Sequence[str]:
        """Paths or addresses of the annotation files, in a stable order; the first is for errors.

        Raises:
            DataError: One that the config names is missing.
        """

    @abstractmethod
    def annotated(self, findings: Findings, remarks: Counter[str]) -> Iterator[AnnotatedImage]:
        """Reads the annotations; `name` of each image is its path below `folder`.

        Args:
            findings: Gets what is wrong with single images and shapes.
            remarks: Counts what is read otherwise than one may think.
        """

    @property
    def list_file(self) -> Path | None:
        """See `Source.list_file`."""
        return self.config.ids

    def files(self) -> Mapping[str, tuple[str, str | None]] | None:
        """Address and problem of each image, by its path below `folder`, in order.

        None where the annotations list the images.
        """
        return None

    def present(self) -> Sequence[str]:
        """Names of files that decide which image an annotation belongs to."""
        return [*(self.files() or ())]

    def inside(self, address: str) -> str | None:
        """The path below `folder` of an address without inner `..`; None if it is elsewhere."""
        folder = normalized_path(str(self.folder))
        if folder == ".":
            return None if address.startswith(("/", "../")) or address == ".." else address
        return address.removeprefix(f"{folder}/") if address.startswith(f"{folder}/") else None

    def list(self) -> pa.Table:
        """See `Source.list`; in the order of the annotations, or sorted by path."""
        if not self.folder.is_dir():
            raise missing_folder(self.folder, f"{self.where}: {self.folder}")
        own = self._drawing
        self._root = Root(self.folder, follow_links=self.config.follow_links)
        self._drawn = DrawnLabels(own.folder, own.limits, as_stored=own.as_stored)
        index = self._index()
        self.remarks += index.remarks
        self._undrawn: dict[str, tuple[str, str]] = {}
        found = [*self._listed(index.digests)]
        self.undrawn = len(self._undrawn)
        self._check_found(found)
        return listing(found)

    def draw(self, advance: Callable[[], None]) -> None:
        """See `Source.draw`."""
        waiting = dict(self._undrawn)
        images = (
            image
            for image in self.annotated(Findings(), Counter())
            if image.shapes is not None and image.name in waiting
        )

        def draw(image: AnnotatedImage) -> None:
            stopping.check()
            key, address = waiting[image.name]
            ids, rest = self._names.ids_of(image.shapes or ()), self._names.rest
            stamp = file_stamps.stamp(address)
            # Annotations that have changed in the meantime are listed anew by the next command.
            if self._drawn.key(drawing.digest(image, ids, rest), stamp) == key:
                self._drawn.draw(key, address, image, ids, rest)

        with ThreadPoolExecutor(os.cpu_count()) as threads:
            while batch := [*islice(images, _BATCH)]:
                for _ in threads.map(draw, batch):
                    advance()

    @property
    def _drawing(self) -> Drawing:
        assert self.drawing is not None, "a run has told it how to draw"
        return self.drawing

    @cached_property
    def _names(self) -> ClassNames:
        config = self.config
        rest = self.default_rest if config.rest is None else config.rest
        return ClassNames(self._drawing.vocabulary, config.names, rest, self.where)

    def _listed(self, digests: Mapping[str, str | None]) -> Iterator[Listed]:
        """Yields the images; keeps those whose label files are not drawn."""
        files = self.files()
        places: dict[str, str] = {}
        without = 0
        for name in self._chosen(digests if files is None else files):
            digest = digests.get(name)
            if digest is None and self.only_masked:
                without += 1
                continue
            address, problem = self._address_of(name) if files is None else files[name]
            if (other := places.setdefault(address, name)) != name:
                what = f"{other!r} and {name!r} are the same image"
                raise DataError(what, where=self.inputs()[0], fix="keep one of the two entries")
            stamp = file_stamps.stamp(address) if problem is None else None
            if digest is None:
                yield Listed(address, problem=problem, stamp=stamp)
                continue
            key = self._drawn.key(digest, stamp)
            problem = problem or self._drawn.problem(key)
            if stamp is not None and not self._drawn.is_done(key):
                self._undrawn[name] = (key, address)
            mask = self._drawn.address(key)
            yield Listed(address, mask, problem=problem, stamp=stamp, mask_stamp=key)
        if without:
            all_of = len(digests if files is None else files)
            self.remarks.append(f"{without:,} of {all_of:,} images without annotations passed over")

    def _chosen(self, names: Collection[str]) -> Iterable[str]:
        """The images of the list, in its order; without a list all."""
        if self.config.ids is None:
            return names
        where = f"{self.where}.ids: {self.config.ids}"
        chosen: dict[str, None] = {}
        for number, line in enumerate(text_list.read_ids(self.config.ids, where), start=1):
            name = line if line in names else line.strip(" \t")
            if name and name not in names:
                what = f"line {number}: no image {name!r} in the annotations"
                raise DataError(what, where=where, fix="correct the line or remove it")
            if name:
                chosen[name] = None
        return chosen

    def _address_of(self, name: str) -> tuple[str, str | None]:
        address = normalized_path(os.path.join(self._root.folder, name))
        return address, self._root.problem(address)

    def _check_found(self, found: Sequence[Listed]) -> None:
        """Refuses annotations of no image that is there; a remark counts those of some."""
        where = self.inputs()[0]
        if not found:
            fix = "annotate at least one image"
            raise DataError("no annotated image", where=where, fix=fix)
        missing = [one.image for one in found if one.stamp is None and one.problem is None]
        count = f"{len(missing):,} of {len(found):,} annotated images are missing"
        if len(missing) == len(found):
            fix = "set `images` to the folder that the names in the annotations start from"
            raise DataError(f"{count}, first: {missing[0]}", where=where, fix=fix)
        if missing:
            self.remarks.append(f"{count}, first: {missing[0]}")

    def _index(self) -> AnnotationIndex:
        inputs = self.inputs()
        stamps = [[file, file_stamps.stamp(file)] for file in inputs]
        own = [self.file_name(), self.config.model_dump(mode="json")]
        place = hashlib.sha256(os.fsencode("\0".join([self.file_name(), *map(str, self.paths)])))
        cached = self._drawing.folder / f"index-{place.hexdigest()[:16]}.parquet"
        about = [own, stamps, [*self.present()]]
        return read_index(cached, about, self.annotated, self._names, inputs[0])
