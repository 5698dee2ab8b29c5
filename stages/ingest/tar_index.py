"""What is in a webdataset archive, worked out once and kept for as long as the archive is the same.

Listing an archive takes a read a file in it; a run's plan lists all of them, every time.
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
from pipeline.files import storage, tar
from stages.ingest.sources.base import IMAGE_ENDINGS, Listed, listing, text_columns

_VERSION = "3"
"""Raised when the same archive gives another index."""
_MAX_TEXT = 2**20
"""Bytes of a caption or metadata file that are read."""


@dataclass
class TarIndex:
    """The images of an archive.

    Attributes:
        listed: The images, in the order of the archive; a table as `LISTING`.
        failures: Images that img2dataset could not get, by the reason it gives.
        remark: What is wrong with the sidecar, if anything.
    """

    listed: pa.Table
    failures: dict[str, int] = field(default_factory=dict)
    remark: str | None = None


def index(archive: str, cache: Path) -> TarIndex:
    """The images of an archive, with what its sidecar or the files beside them say of them.

    Args:
        archive: Path or address of a .tar file; ``<name>.parquet`` beside it is its sidecar.
        cache: Folder of the indexes.
    """
    sidecar = f"{archive.removesuffix('.tar')}.parquet"
    made_from = json.dumps([_VERSION, storage.stamp(archive), storage.stamp(sidecar)])
    kept = cache / f"{hashlib.sha256(os.fsencode(archive)).hexdigest()[:16]}.parquet"
    found = _kept(kept, made_from)
    if found is None:
        found = _made(archive, sidecar)
        _keep(found, kept, made_from)
    return found


def _made(archive: str, sidecar: str) -> TarIndex:
    stamp_then = storage.stamp(archive)
    images: dict[str, Listed] = {}
    about: dict[str, dict[str, str]] = {}
    damage: str | None = None
    try:
        for entry in tar.entries(archive):
            member = entry.member
            key, ending = _key_and_ending(member.name)
            if ending in IMAGE_ENDINGS:
                problem = _problem(entry)
                images[member.name] = Listed(member.uri, problem=problem, stamp=stamp_then)
            elif ending in (".txt", ".json") and entry.whole and entry.kind == "a file":
                about.setdefault(key, {})[ending] = _read_text(member)
    except OSError as error:
        if storage.is_fault(error):
            raise
        damage = f"cannot be read: {error.strerror}"
    except tar.DamagedArchiveError as error:
        damage = f"{error}; images before it are read" if images else str(error)
    rows, failures, remark = _read_sidecar(sidecar)
    listed = []
    for name, one in images.items():
        caption, url = _said(_key_and_ending(name)[0], rows, about)
        listed.append(one._replace(caption=caption, url=url))
    if damage is None and not listed:
        damage = "no image in the archive"
    if damage is not None:
        listed.append(Listed(archive, problem=damage, stamp=stamp_then))
    return TarIndex(listing(listed), failures, remark)


def _key_and_ending(name: str) -> tuple[str, str]:
    """Files up to the first point of their name belong together: webdataset's convention."""
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


def _said(
    key: str, rows: dict[str, tuple[str | None, str | None]], about: dict[str, dict[str, str]]
) -> tuple[str | None, str | None]:
    """Caption and URL of an image: of the sidecar, else of the files beside it."""
    if key in rows:
        return rows[key]
    files = about.get(key, {})
    try:
        values: Any = json.loads(files.get(".json", "{}"))
    except (ValueError, RecursionError):
        values = {}
    values = values if isinstance(values, dict) else {}
    caption = files.get(".txt", values.get("caption"))
    texts = [one if isinstance(one, str) and one else None for one in (caption, values.get("url"))]
    return texts[0], texts[1]


def _read_sidecar(
    sidecar: str,
) -> tuple[dict[str, tuple[str | None, str | None]], dict[str, int], str | None]:
    """Caption and URL by key, failures by reason, and what is wrong with the file."""
    try:
        content = storage.read_bytes(sidecar)
    except (FileNotFoundError, storage.NoPlainFileError):
        return {}, {}, None
    except OSError as error:
        if storage.is_fault(error):
            raise
        return {}, {}, f"{sidecar} cannot be read: {error.strerror}"
    try:
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            names = {"key", "caption", "url", "status", "error_message"}
            names &= set(file.schema_arrow.names)
            if "key" not in names:
                return {}, {}, f"{sidecar} has no column `key`; it is no sidecar of img2dataset"
            columns = text_columns(file.read(columns=sorted(names)), names)
        texts = columns.to_pydict()
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        return {}, {}, f"{sidecar} cannot be read: {str(error).partition(chr(10))[0]}"
    nothing = [None] * len(texts["key"])
    said = zip(texts.get("caption", nothing), texts.get("url", nothing), strict=True)
    rows = dict(zip(texts["key"], said, strict=True))
    states = zip(texts.get("status", nothing), texts.get("error_message", nothing), strict=True)
    failed = Counter(reason or state for state, reason in states if state not in (None, "success"))
    return rows, dict(failed), None


def _kept(path: Path, made_from: str) -> TarIndex | None:
    try:
        table = pq.ParquetFile(pa.BufferReader(storage.read_bytes(path))).read()
    except (OSError, pa.ArrowException, storage.NoPlainFileError):
        return None
    metadata = {} if table.schema.metadata is None else table.schema.metadata
    if metadata.get(b"made_from") != made_from.encode():
        return None
    more = json.loads(metadata[b"more"])
    return TarIndex(table.replace_schema_metadata(None), more["failures"], more["remark"])


def _keep(found: TarIndex, path: Path, made_from: str) -> None:
    """Writes an index, if that is possible: `status` works where nothing can be written."""
    more = json.dumps({"failures": found.failures, "remark": found.remark})
    table = found.listed.replace_schema_metadata({"made_from": made_from, "more": more})
    content = pa.BufferOutputStream()
    pq.write_table(table, content, compression="zstd", use_dictionary=False)  # no text twice
    with suppress(OSError, StorageError):
        storage.write_bytes(path, content.getvalue().to_pybytes(), durable=False)
