"""The places of parts, and of files that belong to a table but hold none of its rows.

Polars, DuckDB and Hugging Face `datasets` read every file below a table's folder, whatever its
name. Such files are therefore in hidden folders next to the tables.
"""

from pathlib import Path


def index_file(folder: Path) -> Path:
    """The index of a folder of parts: `<manifests>/.index/<table>/<partition>.parquet`."""
    table, below = _table_and_below(folder)
    return table.parent / ".index" / table.name / f"{below}.parquet"


def temporary_folder(folder: Path) -> Path:
    """The folder in which parts are written before they are moved to their place."""
    table, _ = _table_and_below(folder)
    return table.parent / ".unfinished"


def place_of(part: Path) -> str:
    """The place of a part in its run: table, partition and file name; of a kept one its return."""
    table, below = _table_and_below(part.parent)
    return f"{table.name}/{below}/{part.name.partition('.')[0]}.parquet"


def file_at(part: Path, place: str) -> Path:
    """The file at a place of the run that a part belongs to; see `place_of`."""
    table, _ = _table_and_below(part.parent)
    name, below, file = place.split("/")
    return table.parent / name / file if below == "all" else table.parent / name / below / file


def _table_and_below(folder: Path) -> tuple[Path, str]:
    """The folder of a table, and the partition `key=value` below it; "all" without one."""
    if "=" in folder.name:
        return folder.parent, folder.name
    return folder, "all"
