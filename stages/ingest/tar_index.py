"""Indexes of webdataset archives, cached until an archive changes.

Listing an archive takes one read for each file in it, and every plan of a run lists all archives.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import StorageError
from pipeline.files import file_stamps, storage, tar
from stages.ingest.sources.base import IMAGE_ENDINGS, Listed, listing, text_columns

_VERSION = "3"
"""Increased when the same archive gives another index."""
_MAX_TEXT = 2**20
"""Size limit of a caption or metadata file in bytes; longer ones count as empty."""


_SidecarRows = dict[str, tuple[str | None, str | None]]
"""Caption and URL of samples by key."""
_Metadata = dict[str, dict[str, str]]
"""Texts of the metadata files of samples, by key and ending."""


@dataclass
class TarIndex:
    """The images of an archive.

    Attributes:
        listed: The images, in the order of the archive; a table of the schema `LISTING`.
        failures: Numbers of images that img2dataset could not download, by reason.
        remark: What is wrong with the sidecar, if anything.
        is_whole: Whether archive and sidecar could be read; else the next run must try again.
    """

    listed: pa.Table
    failures: dict[str, int] = field(default_factory=dict)
    remark: str | None = None
    is_whole: bool = True


def read_index(archive: str, cache: Path) -> TarIndex:
    """Lists the images of an archive, with captions and URLs from its sidecar or members.

    Args:
        archive: Path or address of a .tar file; its sidecar is ``<name>.parquet`` next to it.
        cache: Folder of the cached indexes.
    """
    sidecar = f"{archive.removesuffix('.tar')}.parquet"
    made_from = json.dumps([_VERSION, file_stamps.stamp(archive), file_stamps.stamp(sidecar)])
    cached = cache / f"{hashlib.sha256(os.fsencode(archive)).hexdigest()[:16]}.parquet"
    found = _read_cached(cached, made_from)
    if found is None:
        found = _build_index(archive, sidecar)
        if found.is_whole:
            _write_cache(found, cached, made_from)
    return found


def _build_index(archive: str, sidecar: str) -> TarIndex:
    stamp_before = file_stamps.stamp(archive)
    images: dict[str, Listed] = {}
    metadata: _Metadata = {}
    damage: str | None = None
    is_listed = is_whole = True
    try:
        for entry in tar.entries(archive):
            member = entry.member
            key, ending = _key_and_ending(member.name)
            if ending in IMAGE_ENDINGS:
                problem = _problem(entry)
                images[member.name] = Listed(member.uri, problem=problem, stamp=stamp_before)
            elif ending in (".txt", ".json") and entry.whole and entry.kind == "a file":
                metadata.setdefault(key, {})[ending] = _read_text(member)
    except OSError as error:
        if storage.is_fault(error):
            raise
        is_listed = is_whole = False
    except tar.DamagedArchiveError as error:
        damage = f"{error}; images before it are read" if images else str(error)
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
    for name, image in images.items():
        caption, url = _caption_and_url(_key_and_ending(name)[0], sidecar_rows, metadata)
        listed.append(image._replace(caption=caption, url=url))
    if not is_listed:
        listed.append(Listed(archive, stamp=stamp_before))  # reading it as an image tells why
    elif damage is None and not listed:
        damage = "no image in the archive"
    if damage is not None:
        listed.append(Listed(archive, problem=damage, stamp=stamp_before))
    return TarIndex(listing(listed), failures, remark, is_whole)


def _key_and_ending(name: str) -> tuple[str, str]:
    """Splits a name at its first point: files of the same key are a sample, as in webdataset."""
    folder, slash, base = name.rpartition("/")
    key, point, ending = base.partition(".")
    return f"{folder}{slash}{key}", f"{point}{ending}".lower()


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
    key: str, sidecar_rows: _SidecarRows, metadata: _Metadata
) -> tuple[str | None, str | None]:
    """Caption and URL of an image from the sidecar, or from the other files of its sample."""
    if key in sidecar_rows:
        return sidecar_rows[key]
    files = metadata.get(key, {})
    try:
        values: Any = json.loads(files.get(".json", "{}"))
    except (ValueError, RecursionError):
        values = {}
    values = values if isinstance(values, dict) else {}
    caption = files.get(".txt", values.get("caption"))
    texts = [one if isinstance(one, str) and one else None for one in (caption, values.get("url"))]
    return texts[0], texts[1]


def _read_sidecar(sidecar: str) -> tuple[_SidecarRows, dict[str, int], str | None]:
    """Reads captions and URLs, numbers of failures by reason, and what is wrong with the file.

    Raises:
        OSError: The file cannot be read.
    """
    try:
        content = storage.read_bytes(sidecar)
    except (FileNotFoundError, storage.NoPlainFileError):
        return {}, {}, None
    try:
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            names = {"key", "caption", "url", "status", "error_message"}
            names &= set(file.schema_arrow.names)
            if "key" not in names:
                return {}, {}, f"{sidecar} has no column `key`: not a sidecar of img2dataset"
            columns = text_columns(file.read(columns=sorted(names)), names)
        texts = columns.to_pydict()
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        return {}, {}, f"{sidecar} cannot be read: {str(error).partition(chr(10))[0]}"
    nothing = [None] * len(texts["key"])
    texts_of = zip(texts.get("caption", nothing), texts.get("url", nothing), strict=True)
    rows = dict(zip(texts["key"], texts_of, strict=True))
    states = zip(texts.get("status", nothing), texts.get("error_message", nothing), strict=True)
    failed = Counter(reason or state for state, reason in states if state not in (None, "success"))
    return rows, dict(failed), None


def _read_cached(path: Path, made_from: str) -> TarIndex | None:
    try:
        table = pq.ParquetFile(pa.BufferReader(storage.read_bytes(path))).read()
    except (OSError, pa.ArrowException, storage.NoPlainFileError):
        return None
    metadata = {} if table.schema.metadata is None else table.schema.metadata
    if metadata.get(b"made_from") != made_from.encode():
        return None
    more = json.loads(metadata[b"more"])
    return TarIndex(table.replace_schema_metadata(None), more["failures"], more["remark"])


def _write_cache(found: TarIndex, path: Path, made_from: str) -> None:
    """Writes an index if possible; `status` must also work where nothing can be written."""
    more = json.dumps({"failures": found.failures, "remark": found.remark})
    table = found.listed.replace_schema_metadata({"made_from": made_from, "more": more})
    content = pa.BufferOutputStream()
    pq.write_table(table, content, compression="zstd", use_dictionary=False)  # no text twice
    with suppress(OSError, StorageError):
        storage.write_bytes(path, content.getvalue().to_pybytes(), durable=False)
