from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pandas as pd
import pytest

Maskmill = Callable[..., CompletedProcess[str]]


@pytest.fixture
def ingest(
    maskmill: Maskmill, tiny: dict[str, Any], write_config: Callable[..., Path]
) -> Callable[..., CompletedProcess[str]]:
    """Writes the config as it is now and ingests: ``ingest(label_schemes=...)``."""

    def run(**vocabulary: Any) -> CompletedProcess[str]:
        return maskmill("run", "ingest", "--config", write_config(tiny, **vocabulary))

    return run


@pytest.fixture
def manifest_folder(tiny: dict[str, Any]) -> Path:
    return Path(tiny["workspace"], "manifests", tiny["run"], "images")


@pytest.fixture
def rows(manifest_folder: Path, data: Path) -> Callable[[], pd.DataFrame]:
    """The images manifest with paths below `data` as its index."""

    def read() -> pd.DataFrame:
        table = pd.read_parquet(manifest_folder)
        return table.set_index(table.uri.str.removeprefix(f"{data}/"))

    return read


@pytest.fixture
def written(manifest_folder: Path) -> Callable[[], set[int]]:
    """The shards whose part is new, or was written again, since the last call."""
    seen: dict[Path, int] = {}

    def since() -> set[int]:
        times = {path: path.stat().st_mtime_ns for path in manifest_folder.glob("*.parquet")}
        shards = {int(path.stem[5:]) for path, time in times.items() if seen.get(path) != time}
        seen.update(times)
        return shards

    return since
