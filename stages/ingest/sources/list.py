"""A list of images: a text file of paths, or a CSV or Parquet table with captions and URLs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from pipeline.config.config_section import Section
from pipeline.errors import DataError
from pipeline.files import file_stamps, locations, storage, tar
from pipeline.files.config_paths import LocalPath
from pipeline.files.locations import Location
from stages.ingest import text_list
from stages.ingest.containment import Root, normalized_path
from stages.ingest.file_kind import IMAGE_ENDINGS, ending_of
from stages.ingest.sources.base import Listed, Source, listing, text_columns
from stages.ingest.wrong_source import images_in_table

_TABLES = (".csv", ".parquet")
_COLUMNS = ("uri", "path", "mask_uri", "caption", "url")
_DELIMITERS = (",", ";", "\t")
_MAX_HEADER = 2**16
"""Bytes of a table's first line that are looked at."""
_MASKS = re.compile("mask|label|annotation|segmentation", re.IGNORECASE)
"""Names of columns that may hold paths of label files."""
_JSON = (".json", ".jsonl", ".ndjson")
_SEPARATORS = re.compile(r"[ \t]*[\t,;][ \t]*| +")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_Row = dict[str, str | None]


class ListConfig(Section):
    """Keys of a list source."""

    file: LocalPath
    """Text file of image paths, one a line, or of image and label file separated by spaces, a tab,
    a comma or a semicolon, as in published splits; or a .csv or .parquet table with a column `uri`
    (or `path`) and optionally `mask_uri`, `caption` and `url`, such as rows of another run's images
    manifest. A relative path of this file starts at the config file."""
    root: Location = Path()
    """Folder, or address s3://bucket/prefix, that relative paths start from and that no path may
    leave. A relative path of this folder starts at `data`."""
    masks: bool = True
    """Whether to use the label files that the list names. Set false for unlabeled images of a split
    whose lists name the label files of all images."""
    follow_links: bool = False
    """Whether links below the folder may lead out of it."""


class ListSource(Source):
    """Images named by a list."""

    Config = ListConfig
    version = 2
    config: ListConfig

    @property
    def paths(self) -> Mapping[str, Path]:
        """See `Source.paths`; without the key `root` the paths of the list start at `data`."""
        root = locations.join(self.data, self.config.root)
        file = self.config.file
        return {str(self.config.root): root, str(self.config.file): file}

    @property
    def list_file(self) -> Path | None:
        """See `Source.list_file`."""
        is_text = self.config.file.suffix.lower() not in _TABLES
        return self.config.file if is_text else None

    def list(self) -> pa.Table:
        """See `Source.list`; in the order of the list."""
        file = self.config.file
        where = f"{self.where}.file: {file}"
        folder = locations.join(self.data, self.config.root)
        if not folder.is_dir():
            what = "no such folder"
            fix = "create it, or set `root` to the folder that the list's paths start from"
            raise DataError(what, where=f"{self.where}.root: {folder}", fix=fix)
        root = Root(folder, follow_links=self.config.follow_links)
        listed: dict[str, Listed] = {}
        repeated = 0
        self.remarks += _unread_columns(file) if self.config.masks else []
        for number, row in enumerate(_rows(file, where), start=1):
            uri = row["uri"]
            if uri is None:
                continue
            if _SCHEME.match(uri) and not (storage.is_object(uri) and storage.is_object(folder)):
                what = f"image {number}: {uri!r} is not the path of a file"
                fix = "download the images, e.g. with img2dataset, and use a source `webdataset`"
                raise DataError(what, where=where, fix=fix)
            image = self._listed(uri, row, root, number, where)
            repeated += (key := tar.without_position(image.image)) in listed
            listed.setdefault(key, image)
        if not listed:
            raise DataError("the list is empty", where=where, fix="write one image path a line")
        if repeated:
            self.remarks.append(f"{repeated:,} lines of {file} repeat an image")
        columns = [each.image for each in listed.values() if _has_columns(each, root)]
        if columns:
            what = "name no file and look like several columns; a line holds an image, or an image"
            self.remarks.append(
                f"{len(columns):,} lines {what} and its label file, no more; first: {columns[0]}"
            )
        return listing(listed.values())

    def _listed(self, uri: str, row: _Row, root: Root, number: int, where: str) -> Listed:
        image, image_file, problem = _below(root, uri)
        mask, mask_file = row.get("mask_uri") if self.config.masks else None, None
        if mask is not None:
            mask, mask_file, mask_problem = _below(root, mask)
            if mask_problem is not None:
                what = f"image {number}: its mask {mask} {mask_problem}"
                raise DataError(what, where=where, fix="correct the line or remove it")
        # A path with a problem may lead out of the root.
        stamp = file_stamps.stamp(image_file) if problem is None else None
        stamps = (stamp, mask_file and file_stamps.stamp(mask_file))
        return Listed(image, mask, row.get("caption"), row.get("url"), problem, *stamps)


def _below(root: Root, uri: str) -> tuple[str, str, str | None]:
    """Resolves an address of a list.

    Returns:
        The full address, the file that holds the image, and why it must not be read, if so.
    """
    full = uri if storage.is_object(uri) else os.path.join(root.folder, uri)
    if (member := tar.parse(full)) is None:
        full = file = normalized_path(full)
    else:
        file = normalized_path(member.archive)
        full = replace(member, archive=file).uri
    return full, file, root.problem(file)


def _rows(file: Path, where: str) -> Iterator[_Row]:
    """Yields the rows of the list; `uri` is None in empty ones."""
    fix = "write a text file with one image path a line, or a .csv or .parquet table"
    if file.suffix.lower() in _JSON:
        raise DataError("the list is JSON", where=where, fix=fix)
    try:
        if file.suffix.lower() in _TABLES:
            yield from _table_rows(file, where)
            return
        content = file.read_bytes()
    except OSError as error:
        what = f"cannot read the list: {error.strerror or error}"
        raise DataError(what, where=where, fix=fix) from error
    if b"\0" in content:
        raise DataError("cannot read the list: it is not a text file", where=where, fix=fix)
    # File names are bytes; those that are not UTF-8 become rejected rows.
    for line in text_list.lines(content):
        yield _text_row(os.fsdecode(text_list.stripped(line)))


def _text_row(line: str) -> _Row:
    """Splits a line into image and label file, if exactly one separator is between two images."""
    cuts = [
        cut for cut in _SEPARATORS.finditer(line) if ending_of(line[: cut.start()]) in IMAGE_ENDINGS
    ]
    if len(cuts) != 1 or ending_of(line) not in IMAGE_ENDINGS:
        return {"uri": line or None}
    return {"uri": line[: cuts[0].start()], "mask_uri": line[cuts[0].end() :]}


def _has_columns(listed: Listed, root: Root) -> bool:
    """Whether there is no file, and the path looks like an image and further columns."""
    if listed.stamp is not None or listed.problem is not None:
        return False
    line = listed.image.removeprefix(root.folder)
    cuts = _SEPARATORS.finditer(line)
    return any(ending_of(line[: cut.start()]) in IMAGE_ENDINGS for cut in cuts)


def _table_rows(file: Path, where: str) -> Iterator[_Row]:
    try:
        table = _read_table(file)
        texts = text_columns(table, _COLUMNS)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        is_header = isinstance(error, UnicodeDecodeError)
        reason = "it is not UTF-8 text" if is_header else str(error).partition("\n")[0]
        fix = f"save it again as {file.suffix} with columns of text"
        raise DataError(f"cannot read the table: {reason}", where=where, fix=fix) from error
    key = next((name for name in ("uri", "path") if name in texts.column_names), None)
    of_bytes = images_in_table(file, where) if key != "uri" else None
    if of_bytes is not None:
        raise of_bytes
    for name in table.column_names:
        if name not in _COLUMNS and (meant := name.strip().lower()) in _COLUMNS:
            fix = f"rename it to `{meant}`, or drop it"
            raise DataError(f"the table has a column {name!r}", where=where, fix=fix)
    if key is None:
        found = ", ".join(table.column_names)
        fix = f"rename the column that holds the paths; its columns are: {found}"
        raise DataError("the table has no column `uri` or `path`", where=where, fix=fix)
    for batch in texts.to_batches(max_chunksize=10_000):
        for row in batch.to_pylist():
            yield {**row, "uri": row[key] or None, "mask_uri": row.get("mask_uri") or None}


def _unread_columns(file: Path) -> list[str]:
    """A remark on columns of a table that may hold label files, where `mask_uri` is missing."""
    if file.suffix.lower() not in _TABLES or not file.is_file():
        return []
    try:
        names = _column_names(file)
    except (pa.ArrowException, UnicodeDecodeError):  # told when the table is read
        return []
    found = [f"`{name}`" for name in names if _MASKS.search(name)]
    if "mask_uri" in names or not found:
        return []
    return [f"not read: {', '.join(found)}; label files are read from a column `mask_uri`"]


def _column_names(file: Path) -> list[str]:
    if file.suffix.lower() == ".csv":
        with pa.csv.open_csv(file, parse_options=_parse_options(file)) as opened:
            return list(opened.schema.names)
    return list(pa.parquet.read_schema(file).names)


def _parse_options(file: Path) -> Any:
    """How the cells of a CSV file are separated."""
    with file.open("rb") as opened:
        header = opened.readline(_MAX_HEADER)
    # Most exports of spreadsheets are separated by commas, others by semicolons or tabs.
    delimiter = max(_DELIMITERS, key=lambda each: header.count(each.encode()))
    return pa.csv.ParseOptions(newlines_in_values=True, delimiter=delimiter)


def _read_table(file: Path) -> pa.Table:
    if file.suffix.lower() == ".csv":
        strings = pa.csv.ConvertOptions(column_types=dict.fromkeys(_COLUMNS, "string"))
        options = _parse_options(file)
        return pa.csv.read_csv(file, convert_options=strings, parse_options=options)
    with pa.parquet.ParquetFile(file) as opened:
        names = [n for n in opened.schema_arrow.names if n.strip().lower() in _COLUMNS]
        return opened.read(columns=names) if names else opened.schema_arrow.empty_table()
