"""What `maskmill export labels` left in a folder: the format, and where each image came from."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.engine.output_folder import read_facts
from pipeline.errors import DataError
from stages.export.export import PROVENANCE


@dataclass(frozen=True)
class Exported:
    """A folder of exported labels.

    Attributes:
        folder: The folder.
        format: Its format.
        facts: What the labels depended on.
        rows: The rows of its table of provenance, by name of the image.
    """

    folder: Path
    format: str
    facts: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, str]]


def read_exported(folder: Path) -> Exported:
    """Reads the table and the facts of an export.

    Raises:
        DataError: It is no folder that `maskmill export labels` wrote, or not whole.
    """
    fix = "name a folder that `maskmill export labels` wrote, with its maskmill.csv"
    facts = read_facts(folder, "exported labels")
    if facts is None or "run" not in facts:
        raise DataError("no exported labels of a run", where=str(folder), fix=fix)
    try:
        with (folder / PROVENANCE).open(encoding="utf-8", newline="") as file:
            rows = {row["name"]: row for row in csv.DictReader(file)}
    except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
        what = "the table of provenance is missing or damaged"
        raise DataError(what, where=str(folder / PROVENANCE), fix=fix) from error
    return Exported(folder, str(facts["format"]), facts, rows)
