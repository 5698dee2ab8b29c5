"""Tar archives as img2dataset writes them; they are read without unpacking."""

import os
import stat
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from pipeline.config.config_section import Section
from pipeline.errors import DataError
from pipeline.files import file_stamps, locations, storage
from pipeline.files.locations import Location
from stages.ingest.containment import Root
from stages.ingest.sources.base import Listed, Source, listing
from stages.ingest.tar_index import read_index

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


class WebdatasetConfig(Section):
    """Keys of a webdataset source."""

    shards: Location
    """Folder, or address s3://bucket/prefix, of .tar files; subfolders are searched too. A Parquet
    file of the same name next to an archive is its sidecar: caption and url by key."""
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
        if not folder.is_dir():
            fix = "create it, correct the path, or set `data` to the folder that it starts from"
            raise DataError("no such folder", where=where, fix=fix)
        listed: list[pa.Table] = []
        failures: Counter[str] = Counter()
        files = Root(folder, follow_links=self.config.follow_links).files()
        for path, problem in sorted(files):
            if path.endswith(_COMPRESSED):
                problem = "a compressed archive; decompress it: its images are read at random"
            elif not path.endswith(".tar") and not (problem and os.path.isdir(path)):
                continue
            if (problem := problem or _not_a_file(path)) is not None:
                listed.append(
                    listing([Listed(path, problem=problem, stamp=file_stamps.stamp(path))])
                )
                continue
            found = read_index(path, self.cache)
            listed.append(found.listed)
            failures.update(found.failures)
            if found.remark is not None:
                self.remarks.append(found.remark)
        if not listed:
            fix = "add the .tar files of `img2dataset --output_format webdataset`"
            raise DataError("the folder has no .tar file", where=where, fix=fix)
        if failures:
            (reason, count), *_ = failures.most_common(1)
            self.remarks.append(
                f"img2dataset could not download {failures.total():,} more images; "
                f"most frequent reason ({count:,}): {reason}"
            )
        return pa.concat_tables(listed)


def _not_a_file(path: str) -> str | None:
    """Says why an archive is not a file that can be read, as the message of a row."""
    if storage.is_object(path):
        return None
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None if stat.S_ISREG(mode) else "not a plain file"
