"""Errors of a source that was given what another kind of source reads, or none does."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import DataError, StorageError
from pipeline.files import storage
from stages.ingest.file_kind import PassedOver

_UNPACK = "write each image to a file of its own, and name the folder as a source `folder`"


def missing_folder(folder: Path, where: str) -> DataError:
    """The error of a path that is no folder: there is nothing, or a file."""
    if not folder.is_file():
        fix = "create it, correct the path, or set `data` to the folder that it starts from"
        return DataError("no such folder", where=where, fix=fix)
    if (of_bytes := images_in_table(folder, where)) is not None:
        return of_bytes
    fixes = dict.fromkeys([".csv", ".parquet", ".txt"], "if it names images, use a source `list`")
    fixes[".tar"] = "name its folder in a source `webdataset`"
    fix = fixes.get(folder.suffix.lower(), "name the folder that holds the files")
    return DataError("a file, no folder", where=where, fix=fix)


def empty_folder(kind: str, passed: PassedOver, where: str, fix: str) -> DataError:
    """The error of a folder without files of a kind; it names what the folder has instead.

    Args:
        kind: What is missing: "image", ".tar".
        passed: The files that the folder has.
        where: Config key and path of the folder.
        fix: What to do if the other files do not tell.
    """
    remark = passed.remark()
    parquet = passed.first.get(".parquet")
    if parquet is not None and (error := images_in_table(parquet, where)) is not None:
        return error
    if ".tar" in passed.first:
        fix = "use a source `webdataset` for .tar files"
    elif passed.first.keys() & {".zip", ".gz", ".bz2"}:
        fix = "unpack the archives"
    what = f"the folder has no {kind} file" + (f" ({remark})" if remark else "")
    return DataError(what, where=where, fix=fix)


def images_in_table(file: Path | str, where: str) -> DataError | None:
    """The error of a Parquet file that holds the bytes of images; None for any other file.

    They are in a column of bytes, or of records with the field `bytes`, as Hugging Face's
    `datasets` writes them.
    """
    try:
        with storage.opened(str(file)) as opened, pq.ParquetFile(opened) as parquet:
            schema = parquet.schema_arrow
    except (OSError, pa.ArrowException, StorageError):
        return None
    column = next((field.name for field in schema if _holds_bytes(field.type)), None)
    if column is None:
        return None
    what = f"{file} holds images themselves, in its column `{column}`"
    return DataError(what, where=where, fix=_UNPACK)


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
