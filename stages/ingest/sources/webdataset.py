"""Tar archives as img2dataset writes them; they are read without unpacking."""

import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from pipeline.config.config_section import Section
from pipeline.files import file_stamps, locations, storage
from pipeline.files.locations import Location
from stages.ingest.containment import Root
from stages.ingest.file_kind import FileKind, PassedOver, kind_by_name
from stages.ingest.sources.base import Listed, Source, listing
from stages.ingest.tar_index import read_index
from stages.ingest.wrong_source import empty_folder, missing_folder

_COMPRESSED = (
    *(".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar.lz4", ".tar.lzma", ".tar.z"),
    *(".tgz", ".tbz", ".tbz2", ".txz", ".tzst"),
)
_SIDECARS = (".parquet", "_stats.json")
"""What img2dataset writes next to each archive."""


class WebdatasetConfig(Section):
    """Keys of a webdataset source."""

    shards: Location
    """Folder, or address s3://bucket/prefix, of .tar files; subfolders are searched too. Or one
    .tar file. A Parquet file of the same name next to an archive is its sidecar: caption and url
    by key."""
    follow_links: bool = False
    """Whether links below the folder may lead out of it."""


class WebdatasetSource(Source):
    """Images in tar archives."""

    Config = WebdatasetConfig
    version = 1
    config: WebdatasetConfig

    @property
    def paths(self) -> Mapping[str, Path]:
        """See `Source.paths`."""
        return {str(self.config.shards): locations.join(self.data, self.config.shards)}

    def list(self) -> pa.Table:
        """See `Source.list`; sorted by archive, then in its order."""
        folder = locations.join(self.data, self.config.shards)
        where = f"{self.where}.shards: {folder}"
        is_archive = folder.suffix == ".tar" and folder.is_file()
        if not (is_archive or folder.is_dir()):
            raise missing_folder(folder, where)
        passed = PassedOver()
        archives = [(str(folder), None)] if is_archive else self._archives(folder, passed)
        listed: list[pa.Table] = []
        failures: Counter[str] = Counter()
        lacking = 0
        for path, problem in archives:
            if (problem := problem or _not_a_file(path)) is not None:
                listed.append(
                    listing([Listed(path, problem=problem, stamp=file_stamps.stamp(path))])
                )
                continue
            found = read_index(path, self.cache)
            listed.append(found.listed)
            failures.update(found.failures)
            lacking += found.lacking
            passed.counts.update(found.passed_over)
            if found.remark is not None:
                self.remarks.append(found.remark)
        if not listed:
            fix = "add the .tar files of `img2dataset --output_format webdataset`"
            raise empty_folder(".tar", passed, where, fix)
        if failures:
            (reason, count), *_ = failures.most_common(1)
            self.remarks.append(
                f"img2dataset could not download {failures.total():,} more images; "
                f"most frequent reason ({count:,}): {reason}"
            )
        if lacking:
            what = "sidecars list as downloaded are not in their archives"
            self.remarks.append(f"{lacking:,} images that {what}")
        if (remark := passed.remark()) is not None:
            self.remarks.append(remark)
        return pa.concat_tables(listed)

    def _archives(self, folder: Path, passed: PassedOver) -> Iterator[tuple[str, str | None]]:
        """Yields path and problem of every archive below a folder, sorted; counts other files."""
        files = sorted(Root(folder, follow_links=self.config.follow_links).files())
        names = {path for path, _ in files}
        start = len(str(folder))
        for path, problem in files:
            kind = kind_by_name(path[start:].lstrip("/"))
            small = path.lower()
            if kind is FileKind.HIDDEN:
                passed.add(path, kind, path)
            elif path.endswith(".tar") or (problem and os.path.isdir(path)):
                yield path, problem
            elif small.endswith(_COMPRESSED):
                yield path, "a compressed archive; decompress it: its images are read at random"
            elif small.endswith(".tar"):
                yield path, "the ending of its name is in capitals; rename it to .tar"
            elif not any(
                path.endswith(ending) and f"{path.removesuffix(ending)}.tar" in names
                for ending in _SIDECARS
            ):
                passed.add(path, kind, path)


def _not_a_file(path: str) -> str | None:
    """Says why an archive is not a file that can be read, as the message of a row."""
    if storage.is_object(path):
        return None
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None if stat.S_ISREG(mode) else "not a plain file"
