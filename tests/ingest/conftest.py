import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pandas as pd
import pytest
from PIL import Image

Maskmill = Callable[..., CompletedProcess[str]]


@pytest.fixture
def ingest(
    maskmill: Maskmill, tiny: dict[str, Any], write_config: Callable[..., Path]
) -> Callable[..., CompletedProcess[str]]:
    """Writes the current config and ingests: ``ingest(label_schemes=...)``."""

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


@pytest.fixture
def jpeg() -> Callable[[str], bytes]:
    """A small JPEG of one colour."""

    def encode(color: str) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (12, 8), color).save(buffer, "JPEG")
        return buffer.getvalue()

    return encode


@pytest.fixture
def add() -> Callable[..., None]:
    """Adds a file to an archive, with a pax header as img2dataset's files have."""

    def add(archive: tarfile.TarFile, name: str, content: bytes, kind: bytes = b"0") -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mtime, info.type, info.linkname = len(content), 1.5, kind, "/etc/passwd"
        archive.addfile(info, io.BytesIO(content))

    return add


@pytest.fixture
def write_shard(
    jpeg: Callable[[str], bytes], add: Callable[..., None]
) -> Callable[[Path, int, list[str | None]], Path]:
    """Writes a shard as img2dataset does: an image for None, else the reason there is none."""

    def write(folder: Path, number: int, reasons: list[str | None]) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{number:05d}.tar"
        rows = []
        with tarfile.open(path, "w") as archive:
            for index, reason in enumerate(reasons):
                key = f"{number:05d}{index:04d}"
                status = "success" if reason is None else "failed_to_download"
                row: dict[str, str | None] = {"url": f"http://x/{key}", "caption": f"image {key}"}
                row |= {"key": key, "status": status, "error_message": reason}
                rows.append(row)
                if reason is None:
                    add(archive, f"{key}.jpg", jpeg(f"#{number:02x}{index:02x}80"))
                    add(archive, f"{key}.json", json.dumps(row, indent=4).encode())
                    add(archive, f"{key}.txt", f"image {key}".encode())
        pd.DataFrame(rows).to_parquet(path.with_suffix(".parquet"))
        return path

    return write
