"""Whole runs with data and workspace in an object store: the same as on a disk."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import objects
from tests.pipeline.s3_server import Fault, Proxy

Command = Callable[..., CompletedProcess[str]]
PLACES = ["uri", "mask_uri", "stamp", "mask_stamp", "seconds"]


def upload(folder: Path, address: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            name = f"{address}/{path.relative_to(folder).as_posix()}"
            objects.client().pipe_file(name, path.read_bytes())


def download(address: str) -> dict[str, bytes]:
    """Contents of all objects below an address, by their way from there."""
    names = [name for name, _, _ in objects.listed(address)]
    return {name.removeprefix(f"{address}/"): objects.read(name, None)[0] for name in names}


def on_disk(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def rows(part: bytes) -> pd.DataFrame:
    found: pd.DataFrame = pq.read_table(pa.BufferReader(part)).to_pandas()
    return found.drop(columns=PLACES, errors="ignore")


def assert_equal(found: dict[str, bytes], expected: dict[str, bytes]) -> None:
    """The same files: parts of equal rows, stores, weights and logs of equal bytes."""
    assert sorted(found) == sorted(expected)
    for name, content in expected.items():
        if name.endswith(".parquet"):
            pd.testing.assert_frame_equal(rows(found[name]), rows(content))
        elif not name.endswith((".lock", "last.pt", ".html", ".safetensors")):
            assert found[name] == content, name
        elif name.endswith(".safetensors"):
            assert _tensors(found[name]) == _tensors(content)


def _tensors(content: bytes) -> bytes:
    """The tensors of a safetensors file: what follows its header."""
    return content[8 + int.from_bytes(content[:8], "little") :]


@pytest.fixture
def values(tiny: dict[str, Any]) -> dict[str, Any]:
    """Every stage: label files as labels, a training of two steps."""
    own = {"model": "small_unet", "perturbation": "unimatch", "crop_px": 32, "batch_size": 2}
    sources = [
        {"name": "student", "threshold": 0.9},
        {"name": "stored", "labeler": "truth", "on": "ood"},
    ]
    tiny["ingest"]["sources"]["ood"]["source"]["masks"] = "labeled/masks"
    tiny["ingest"]["sources"]["ood"]["source"]["images"] = "labeled/images"
    tiny["ingest"]["sources"].pop("labeled")
    tiny["ingest"]["sources"]["labeled"] = {
        "role": "labeled",
        "source": {"name": "folder", "images": "val/images", "masks": "val/masks"},
    }
    tiny["ingest"]["sources"].pop("val")
    return {
        **tiny,
        "pseudolabel": {"size_px": 32, "labelers": {"truth": "files"}},
        "train": {**own, "steps": 2, "checkpoint_every": 1, "log_every": 1, "workers": 1}
        | {"variants": {"both": {"label_sources": sources}}},
        "evaluate": {},
    }


def test_a_whole_run_is_the_same_as_on_a_disk_and_the_next_does_nothing(
    values: dict[str, Any],
    data: Path,
    bucket: str,
    write_config: Callable[..., Path],
    maskmill: Command,
    s3: Proxy,
) -> None:
    done = maskmill("run", "--config", write_config(values))
    assert done.returncode == 0, done.stderr
    expected = on_disk(Path(values["workspace"]))
    upload(data, f"{bucket}/data")
    remote = {**values, "workspace": f"{bucket}/work", "data": f"{bucket}/data"}
    config = write_config(remote)
    done = maskmill("run", "--config", config)
    assert done.returncode == 0, done.stderr
    assert_equal(download(f"{bucket}/work"), expected)
    before = {name: tag for name, _, tag in objects.listed(f"{bucket}/work")}
    s3.requests.clear()
    done = maskmill("run", "--config", config)
    assert "nothing to do" in done.stderr
    writes = [r for r in s3.requests if not r.startswith(("GET", "HEAD"))]
    assert all(r.split("?")[0].endswith("/.lock") for r in writes), writes
    after = {name: tag for name, _, tag in objects.listed(f"{bucket}/work")}
    assert after == before
    status = json.loads(maskmill("status", "--json", "--config", config).stdout)
    assert {stage["state"] for stage in status["stages"]} == {"fresh"}
