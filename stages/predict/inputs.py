"""Finds the images that a user names on the command line, and the names of their results."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Annotated, NamedTuple

import pyarrow as pa
from pydantic import TypeAdapter

from pipeline.config.components import Choice, chosen_from
from pipeline.errors import DataError
from pipeline.files import file_stamps, locations, storage, tar
from stages.ingest.sources.base import Listed, Source, listing
from stages.predict import frames

_LISTS = (".txt", ".csv", ".parquet")
_SOURCES: TypeAdapter[Choice[Source]] = TypeAdapter(
    Annotated[Choice[Source], *chosen_from("stages.ingest.sources", Source)],
    config={"arbitrary_types_allowed": True},
)
_FIX = "name an image, a folder, a pattern, a list (.txt .csv .parquet), a .tar or a video"


class Input(NamedTuple):
    """An image to predict.

    Attributes:
        address: Path, address, place in an archive, or frame of a video.
        name: Path of its results below a folder, without an ending.
        stamp: Stamp of the file that holds it.
        problem: Why it must not be read, if the listing shows that already.
    """

    address: str
    name: str
    stamp: str | None
    problem: str | None


@dataclass(frozen=True)
class Inputs:
    """The images to predict.

    Attributes:
        images: The images, in a fixed order.
        remarks: Lines about files that no image comes from.
    """

    images: list[Input]
    remarks: list[str]


def find_inputs(
    what: Sequence[str], cache: Path, every: int, recorded: Mapping[str, str]
) -> Inputs:
    """Lists images.

    Args:
        what: Images, folders, patterns such as ``a/*.jpg``, lists, tar archives and videos.
        cache: Folder for the indexes of archives; may be missing.
        every: Of a video's frames every how many is an image.
        recorded: Names that earlier calls gave, by address.

    Raises:
        DataError: There is no such file or folder, or it holds no image.
    """
    tables: list[pa.Table] = []
    names: list[str] = []
    remarks: list[str] = []
    for text in what:
        for one in _expanded(text):
            listed, root, found = _listed(one, cache, every)
            tables.append(listed)
            names += _names(listed["image"].to_pylist(), root)
            remarks += found
    listed = pa.concat_tables(tables)
    addresses = listed["image"].to_pylist()
    first = _first_of_each(addresses)
    if repeated := len(addresses) - len(first):
        remarks.append(f"{repeated:,} images are named twice")
    addresses = [addresses[index] for index in first]
    final = _distinct([names[index] for index in first], addresses, recorded)
    stamps, problems = (listed[name].take(first).to_pylist() for name in ("stamp", "problem"))
    images = [*map(Input, addresses, final, stamps, problems)]
    return Inputs(images, remarks)


def _expanded(text: str) -> Iterator[str]:
    """The files of a pattern; any other text as it is."""
    if storage.is_object(text) or os.path.lexists(text) or not glob.has_magic(text):
        yield text
        return
    found = sorted(glob.glob(text, recursive=True))
    if not found:
        raise DataError("no file fits this pattern", where=text, fix=_FIX)
    yield from found


def _listed(text: str, cache: Path, every: int) -> tuple[pa.Table, str, list[str]]:
    """The images of one argument, the folder that their names start at, and remarks."""
    try:
        path = locations.location(text)
    except ValueError as error:
        raise DataError(str(error), where=text, fix=_FIX) from error
    name, small = str(path), str(path).lower()
    folder = name if path.is_dir() else os.path.dirname(name)
    source: Source | None = None
    if not path.exists():
        raise DataError("no such file or folder", where=text, fix=_FIX)
    if path.is_dir() and not any(path.glob("*.tar")):
        source = _source("folder", text, cache, images=path)
    elif path.is_dir() or small.endswith(".tar"):
        source = _source("webdataset", text, cache, shards=path)
    if source is not None:
        return source.list(), folder, source.remarks
    if small.endswith(_LISTS):
        return _of_list(path, text)
    stamp = file_stamps.stamp(name)
    addresses = frames.addresses(name, every) if small.endswith(frames.ENDINGS) else [name]
    return listing([Listed(each, stamp=stamp) for each in addresses]), folder, []


def _of_list(path: Path, text: str) -> tuple[pa.Table, str, list[str]]:
    """The images of a list, whose paths start at its folder, or are all absolute."""
    for root in (path.absolute().parent, Path("/")):
        keys = {"file": path.absolute(), "root": root, "masks": False, "follow_links": True}
        source = _source("list", text, Path(), **keys)
        images = source.list()
        if images["problem"].null_count:
            break
    files = _files(images["image"].to_pylist())
    return images, os.path.commonpath([os.path.dirname(each) for each in files]), source.remarks


def _source(name: str, where: str, cache: Path, **keys: object) -> Source:
    """A source that is not in a config."""
    choice = _SOURCES.validate_python({"name": name, **keys})
    return choice.create(data=Path(), cache=cache, where=where)


def _below(path: str, root: str) -> str:
    """The part of a path below a folder."""
    if storage.is_object(path):
        return path.removeprefix(root).lstrip("/")
    return os.path.relpath(path, root)


def _files(addresses: Iterable[str]) -> list[str]:
    """The files that hold images."""
    members = ((each, tar.parse(each)) for each in addresses)
    return [each if member is None else member.archive for each, member in members]


def _names(addresses: Iterable[str], root: str) -> list[str]:
    """Paths of images below a folder, with their endings; in a tar below the archive's name."""
    found = []
    for address in addresses:
        member = tar.parse(address)
        file = frames.parse(address)
        if member is not None:
            archive = PurePosixPath(_below(member.archive, root)).with_suffix("")
            name = f"{archive}/{member.name}"
        elif file is not None:
            name = (
                f"{PurePosixPath(_below(file.video, root)).with_suffix('')}/{file.number:06d}.png"
            )
        else:
            name = _below(address, root)
        # A name from an archive or a list must not lead out of the folder of results.
        parts = [part for part in PurePosixPath(name).parts if part not in ("/", "..", ".")]
        found.append("/".join(parts))
    return found


def _first_of_each(addresses: Sequence[str]) -> list[int]:
    """Positions of the addresses that stand first."""
    first: dict[str, int] = {}
    for index, address in enumerate(addresses):
        first.setdefault(tar.without_position(address), index)
    return [*first.values()]


def _distinct(
    names: Sequence[str], addresses: Sequence[str], recorded: Mapping[str, str]
) -> list[str]:
    """Different names for all images: without endings where that is enough, else numbered."""
    stems = [os.path.splitext(name)[0] for name in names]
    shared, taken = Counter(stems), {*recorded.values()}
    found = []
    for stem, name, address in zip(stems, names, addresses, strict=True):
        if (final := recorded.get(address)) is None:
            plain = stem if shared[stem] == 1 else name
            numbered = (f"{plain}-{number}" for number in count(2))
            final = next(each for each in chain([plain], numbered) if each not in taken)
            taken.add(final)
        found.append(final)
    return found
