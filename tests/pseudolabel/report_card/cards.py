"""Reads the report cards of a run."""

from pathlib import Path
from typing import Any

import pandas as pd


def card(manifests: Path, labeler: str, calibration: str = "stored") -> dict[str, Any]:
    rows = pd.read_parquet(manifests / "report_card")
    rows = rows[(rows["labeler"] == labeler) & (rows["calibration"] == calibration)]
    assert len(rows) == 1
    return {str(key): value for key, value in rows.iloc[0].items()}


def parts(manifests: Path) -> dict[str, int]:
    folder = manifests / "report_card"
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*")}
