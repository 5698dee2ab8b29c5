"""Runs on a disk and in an object store, to be compared."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.files import s3_objects

Command = Callable[..., CompletedProcess[str]]


PLACES = ["uri", "mask_uri", "stamp", "mask_stamp", "seconds"]


def upload(folder: Path, address: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            name = f"{address}/{path.relative_to(folder).as_posix()}"
            s3_objects.client().pipe_file(name, path.read_bytes())


def download(address: str) -> dict[str, bytes]:
    """Contents of all objects below an address, by their way from there."""
    names = [name for name, _, _ in s3_objects.listed(address)]
    return {name.removeprefix(f"{address}/"): s3_objects.read(name, None)[0] for name in names}


def on_disk(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def rows(part: bytes) -> pd.DataFrame:
    found: pd.DataFrame = pq.read_table(pa.BufferReader(part)).to_pandas()
    return found.drop(columns=PLACES, errors="ignore")


def assert_equal(found: dict[str, bytes], expected: dict[str, bytes]) -> None:
    """The same files: parts of equal rows, stores, weights and logs of equal bytes.

    Names and contents of TensorBoard's event files hold times.
    """
    assert _without_events(found) == _without_events(expected)
    for name, content in expected.items():
        if "/events/" in name:
            continue
        if name.endswith(".parquet"):
            pd.testing.assert_frame_equal(rows(found[name]), rows(content))
        elif not name.endswith((".lock", "last.pt", ".html", ".safetensors")):
            assert found[name] == content, name
        elif name.endswith(".safetensors"):
            assert _tensors(found[name]) == _tensors(content)


def _without_events(names: Iterable[str]) -> set[str]:
    """The names of files, and the folders of event files."""
    return {re.sub("/events/.*", "/events", name) for name in names}


def _tensors(content: bytes) -> bytes:
    """The tensors of a safetensors file: what follows its header."""
    return content[8 + int.from_bytes(content[:8], "little") :]


@dataclass(frozen=True)
class Twin:
    """A run on a disk and its config in an object store.

    Attributes:
        config: The config whose data and workspace are in the bucket.
        expected: What the run left on the disk.
        work: The workspace in the bucket.
    """

    config: Path
    expected: dict[str, bytes]
    work: str


def assert_refused(done: CompletedProcess[str], *texts: str) -> None:
    """One line of error, with these texts in it."""
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: "), done.stderr
    assert "Traceback" not in done.stderr
    assert all(text in last for text in texts), last
