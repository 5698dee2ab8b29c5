"""What the sources of annotated images share: the list of images, and their drawn label files."""

from __future__ import annotations

import hashlib
import json
import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Annotated, ClassVar

import pyarrow as pa
from pydantic import BeforeValidator, Field

from pipeline import stopping
from pipeline.config.config_section import Section
from pipeline.engine.findings import Findings
from pipeline.errors import DataError, together
from pipeline.files import file_stamps, locations
from stages.ingest import cached_table
from stages.ingest.annotations import drawing
from stages.ingest.annotations.class_names import ClassNames
from stages.ingest.annotations.shapes import AnnotatedImage
from stages.ingest.containment import Root, normalized_path
from stages.ingest.drawn_labels import DrawnLabels
from stages.ingest.sources.base import Drawing, Listed, Source, listing
from stages.ingest.wrong_source import missing_folder

_VERSION = "1"
"""Increased when the same annotations give another index."""
_ENOUGH = 1000
"""Faults after which reading stops: the file is most likely of another kind."""
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
    follow_links: bool = False
    """Whether links below the folder of images may lead out of it."""


@dataclass
class _Index:
    """What annotations say, without the shapes.

    Attributes:
        digests: By name of the image, in order: the digest of its shapes, None if nobody has
            annotated it.
        remarks: Lines for the user.
    """

    digests: dict[str, str | None]
    remarks: list[str] = field(default_factory=list)


class AnnotationSource(Source):
    """Images with annotations, of which label files are drawn into the run's artifacts."""

    draws: ClassVar[bool] = True
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

    def files(self) -> Mapping[str, tuple[str, str | None]] | None:
        """Address and problem of each image, by its path below `folder`, in order.

        None where the annotations list the images.
        """
        return None

    def present(self) -> Sequence[str]:
        """Names of files that decide which image an annotation belongs to."""
        return [*(self.files() or ())]

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
        return ClassNames(self._drawing.vocabulary, config.names, config.rest, self.where)

    def _listed(self, digests: Mapping[str, str | None]) -> Iterator[Listed]:
        """Yields the images; keeps those whose label files are not drawn."""
        files = self.files()
        places: dict[str, str] = {}
        without = 0
        for name in digests if files is None else files:
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

    def _index(self) -> _Index:
        """The index of the annotations, which is kept until they or the classes change."""
        inputs = self.inputs()
        stamps = [[file, file_stamps.stamp(file)] for file in inputs]
        own = [self.file_name(), self.config.model_dump(mode="json"), self._names.facts()]
        about = [_VERSION, own, stamps, [*self.present()]]
        made_from = hashlib.sha256(json.dumps(about).encode()).hexdigest()
        place = hashlib.sha256(os.fsencode("\0".join([self.file_name(), *map(str, self.paths)])))
        cached = self._drawn.folder / f"index-{place.hexdigest()[:16]}.parquet"
        if (known := cached_table.read(cached, made_from)) is not None:
            table, more = known
            names = map(os.fsdecode, table["name"].to_pylist())
            return _Index(dict(zip(names, table["digest"].to_pylist(), strict=True)), **more)
        found = self._read(inputs[0])
        columns = {
            "name": pa.array(map(os.fsencode, found.digests), pa.binary()),  # may be any bytes
            "digest": pa.array(found.digests.values(), pa.string()),
        }
        cached_table.write(cached, made_from, pa.table(columns), {"remarks": found.remarks})
        return found

    def _read(self, file: str) -> _Index:
        """Reads all annotations.

        Raises:
            DataError: All that is wrong with them.
        """
        findings, remarks = Findings(), Counter[str]()
        digests: dict[str, str | None] = {}
        twice: dict[str, str] = {}
        outside = 0
        for image in self.annotated(findings, remarks):
            if len(findings.by_text) >= _ENOUGH:
                break
            if not _is_path(image.name):
                what = f"{image.name[:40]!a} can be no name of a file"
                findings.add(DataError(what, where=image.where, fix="correct it"))
                continue
            if image.name in digests:
                twice.setdefault(image.name, image.where)
                continue
            ids = self._names.ids_of(image.shapes or ())
            digest = drawing.digest(image, ids, self._names.rest)
            digests[image.name] = None if image.shapes is None else digest
            outside += image.num_outside()
        if twice:
            name, where = next(iter(twice.items()))
            count = f"{len(twice):,} image{'s are' if twice.keys() - {name} else ' is'}"
            what = f"{count} listed twice, first: {name}"
            findings.add(DataError(what, where=where, fix="keep one of the entries"))
        if (unknown := self._names.fault(file)) is not None:
            findings.add(unknown)
        if findings.faults:
            raise together(findings.faults)
        if outside:
            remarks["shapes reach out of their image and are cut off"] = outside
        return _Index(digests, [f"{count:,} {what}" for what, count in sorted(remarks.items())])


def _is_path(name: str) -> bool:
    """Whether a name can be that of a file: JSON may hold half a character."""
    try:
        return bool(os.fsencode(name))
    except UnicodeEncodeError:
        return False


def below(data: Path, path: Path) -> str:
    """The path or address of a file that a config names relative to `data`."""
    return str(locations.join(data, path))
