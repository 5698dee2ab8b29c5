"""Indexes of webdataset archives, cached until an archive changes.

Listing an archive takes one read for each file in it, and every plan of a run lists all archives.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import stopping
from pipeline.files import file_stamps, storage, tar
from pipeline.redaction import without_secrets
from stages.ingest import cached_table
from stages.ingest.file_kind import FileKind, PassedOver, ending_of, kind
from stages.ingest.sources.base import Listed, listing, text_columns

_VERSION = "4"
"""Increased when the same archive gives another index."""
_MAX_TEXT = 2**20
"""Size limit of a caption or metadata file in bytes; longer ones count as empty."""
_CACHED = ("failures", "remark", "lacking", "passed_over")
"""Attributes of an index that are cached next to its table."""
_TEXTS = (".txt", ".json")
"""Endings of caption and metadata files."""
_SIDECAR_COLUMNS = ("key", "caption", "url", "status", "error_message")
_LABELS = (".seg", ".mask", ".label", ".segmentation")
"""Parts of names before the last ending that say: the labels of the image of that sample."""

_SidecarRows = dict[str, tuple[str | None, str | None]]
"""Caption and URL of samples by key."""
_Members = dict[str, tuple[tar.Entry, FileKind]]
"""Files of an archive by name."""
_Metadata = dict[str, dict[str, str]]
"""Texts of the metadata files of samples, by key and ending."""


@dataclass
class TarIndex:
    """The images of an archive.

    Attributes:
        listed: The images, in the order of the archive; a table of the schema `LISTING`.
        failures: Numbers of images that img2dataset could not download, by reason.
        remark: What is wrong with the sidecar, if anything.
        lacking: Number of images that the sidecar has and the archive lacks.
        passed_over: Numbers of files that are no image and belong to none: see `PassedOver`.
        is_whole: Whether archive and sidecar could be read; else the next run must try again.
    """

    listed: pa.Table
    failures: dict[str, int] = field(default_factory=dict)
    remark: str | None = None
    lacking: int = 0
    passed_over: dict[str, int] = field(default_factory=dict)
    is_whole: bool = True


def read_index(archive: str, cache: Path) -> TarIndex:
    """Lists the images of an archive, with captions and URLs from its sidecar or members.

    Args:
        archive: Path or address of a .tar file; its sidecar is ``<name>.parquet`` next to it.
        cache: Folder of the cached indexes.
    """
    sidecar = f"{archive.removesuffix('.tar')}.parquet"
    made_from = json.dumps(
        [_VERSION, archive, file_stamps.stamp(archive), file_stamps.stamp(sidecar)]
    )
    cached = cache / f"{hashlib.sha256(os.fsencode(archive)).hexdigest()[:16]}.parquet"
    if (known := cached_table.read(cached, made_from)) is not None:
        return TarIndex(known[0], **known[1])
    found = _build_index(archive, sidecar)
    if found.is_whole:
        more = {name: getattr(found, name) for name in _CACHED}
        cached_table.write(cached, made_from, found.listed, more)
    return found


def _build_index(archive: str, sidecar: str) -> TarIndex:
    stamp_before = file_stamps.stamp(archive)
    members: _Members = {}
    passed = PassedOver()
    damage: str | None = None
    is_listed = is_whole = True
    try:
        for entry in tar.entries(archive):
            stopping.check()
            name = entry.member.name
            if entry.kind != "a folder":
                if name in members:  # as if unpacked, the last file of a name counts
                    passed.add_as("repeated name")
                members[name] = entry, kind(name, entry.start)
    except OSError as error:
        if storage.is_fault(error):
            raise
        is_listed = is_whole = False
    except tar.DamagedArchiveError as error:
        damage = str(error)
    images = _images(members, passed)
    metadata = _metadata(members, images, passed)
    sidecar_rows: _SidecarRows = {}
    failures: dict[str, int] = {}
    try:
        sidecar_rows, failures, remark = _read_sidecar(sidecar)
    except OSError as error:
        if storage.is_fault(error):
            raise
        remark = f"{sidecar} cannot be read: {error.strerror}"
        is_whole = False
    listed = []
    for name, entry in images.items():
        caption, url = _caption_and_url(_keys(name), sidecar_rows, metadata)
        uri, problem = entry.member.uri, _problem(entry)
        listed.append(Listed(uri, None, caption, url, problem, stamp_before))
    if not is_listed:
        listed.append(Listed(archive, stamp=stamp_before))  # reading it as an image tells why
        return TarIndex(listing(listed), failures, remark, is_whole=False)
    if damage is not None and listed:
        damage = f"{damage}; images before it are read"
    elif not listed and damage is None:
        damage = "no image in the archive"
    if damage is not None:
        listed.append(Listed(archive, problem=damage, stamp=stamp_before))
    lacking = len(sidecar_rows.keys() - {key for name in images for key in _keys(name)})
    return TarIndex(listing(listed), failures, remark, lacking, dict(passed.counts), is_whole)


def _images(members: _Members, passed: PassedOver) -> dict[str, tar.Entry]:
    """The images; counts the other files, except those that may be captions."""
    found = {name: entry for name, (entry, what) in members.items() if what is FileKind.IMAGE}
    stems = {os.path.splitext(name)[0] for name in found}
    for name in [*found]:
        stem, ending = os.path.splitext(name)
        sample, part = os.path.splitext(stem)
        if part.lower() in _LABELS and sample in stems:
            passed.add_as(f"{part}{ending}".lower())
            del found[name]
    for name, (_, what) in members.items():
        if what is FileKind.HIDDEN or (what is FileKind.OTHER and ending_of(name) not in _TEXTS):
            passed.add(name, what)
    return found


def _metadata(members: _Members, images: Iterable[str], passed: PassedOver) -> _Metadata:
    """The texts of captions and metadata; counts those that belong to no image."""
    keys = {key for name in images for key in _keys(name)}
    texts: _Metadata = {}
    for name, (entry, what) in members.items():
        ending = ending_of(name)
        if what is not FileKind.OTHER or ending not in _TEXTS:
            continue
        if (key := os.path.splitext(name)[0]) not in keys:
            passed.add(name, what)
        elif entry.whole and entry.kind == "a file":
            texts.setdefault(key, {})[ending] = _read_text(entry.member)
    return texts


def _keys(name: str) -> tuple[str, ...]:
    """Names, without ending, of the captions of an image: of its own, and of its sample.

    Files of a sample are equal up to the first point, as in webdataset: `22.05.png` has the caption
    `22.05.txt`, else `22.txt`.
    """
    folder, slash, base = name.rpartition("/")
    return os.path.splitext(name)[0], f"{folder}{slash}{base.partition('.')[0]}"


def _problem(entry: tar.Entry) -> str | None:
    name = entry.member.name
    if name.startswith("/") or ".." in name.split("/"):
        return "its name leads out of the archive"
    if entry.kind != "a file":
        return f"{entry.kind}, no file"
    return None if entry.whole else "the archive ends in the middle of it"


def _read_text(member: tar.Member) -> str:
    if member.size > _MAX_TEXT:
        return ""
    return tar.read(member).decode("utf-8", "replace")


def _caption_and_url(
    keys: Iterable[str], sidecar_rows: _SidecarRows, metadata: _Metadata
) -> tuple[str | None, str | None]:
    """Caption and URL of an image from the sidecar, or from the other files of its sample."""
    for key in keys:
        if key in sidecar_rows:
            return sidecar_rows[key]
    files = next((metadata[key] for key in keys if key in metadata), {})
    try:
        values: Any = json.loads(files.get(".json", "{}"))
    except (ValueError, RecursionError):
        values = {}
    values = values if isinstance(values, dict) else {}
    caption = files.get(".txt", values.get("caption"))
    texts = [one if isinstance(one, str) and one else None for one in (caption, values.get("url"))]
    return texts[0], texts[1]


def _read_sidecar(sidecar: str) -> tuple[_SidecarRows, dict[str, int], str | None]:
    """Reads texts of downloaded images, numbers of failures, and what is wrong with the file.

    Raises:
        OSError: The file cannot be read.
    """
    try:
        content = storage.read_bytes(sidecar)
    except (FileNotFoundError, storage.NoPlainFileError):
        return {}, {}, None
    try:
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            names = {*_SIDECAR_COLUMNS} & {*file.schema_arrow.names}
            if "key" not in names:
                return {}, {}, f"{sidecar} has no column `key`: not a sidecar of img2dataset"
            columns = text_columns(file.read(columns=sorted(names)), names)
        texts = columns.to_pydict()
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        return {}, {}, f"{sidecar} cannot be read: {str(error).partition(chr(10))[0]}"
    nothing = [None] * len(texts["key"])
    in_order = (texts.get(name, nothing) for name in _SIDECAR_COLUMNS)
    rows: _SidecarRows = {}
    failed: Counter[str] = Counter()
    for key, caption, url, status, reason in zip(*in_order, strict=True):
        if status in (None, "success"):
            rows[key] = caption, url
        else:
            failed[without_secrets(reason or status)] += 1
    return rows, dict(failed), None
