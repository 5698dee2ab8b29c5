"""Whole runs with data and workspace in an object store: the same as on a disk."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.files import s3_objects
from tests.s3_server import Fault, Proxy, aged, forget_clients, until

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
def every_stage(stage_one: dict[str, Any]) -> dict[str, Any]:
    """The same, a training of two steps, and its scores."""
    own = {"model": "small_unet", "perturbation": "unimatch", "crop_px": 32, "batch_size": 2}
    stored = {"name": "stored", "labeler": "truth", "on": "ood"}
    variants = {"both": {"label_sources": [{"name": "student", "threshold": 0.9}, stored]}}
    train = {**own, "steps": 2, "checkpoint_every": 1, "log_every": 1, "variants": variants}
    sources = {**stage_one["ingest"]["sources"]}
    for role, place in (("ood", "labeled"), ("labeled", "val")):
        folders = {"images": f"{place}/images", "masks": f"{place}/masks"}
        sources[role] = {"role": role, "source": {"name": "folder", **folders}}
    del sources["val"]
    ingest = {**stage_one["ingest"], "sources": sources}
    pseudolabel = {**stage_one["pseudolabel"], "roles": ["ood"]}
    return {
        **stage_one,
        **{"ingest": ingest, "pseudolabel": pseudolabel, "train": train, "evaluate": {}},
    }


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


@pytest.fixture
def twin(
    data: Path, bucket: str, write_config: Callable[..., Path], maskmill: Command
) -> Callable[[dict[str, Any]], Twin]:
    """Runs a config on the disk, and puts its data into the bucket."""

    def make(values: dict[str, Any]) -> Twin:
        done = maskmill("run", "--config", write_config(values))
        assert done.returncode == 0, done.stderr
        upload(data, f"{bucket}/data")
        work = f"{bucket}/work"
        config = write_config({**values, "workspace": work, "data": f"{bucket}/data"})
        return Twin(config, on_disk(Path(values["workspace"])), work)

    return make


def assert_refused(done: CompletedProcess[str], *texts: str) -> None:
    """One line of error, with these texts in it."""
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: "), done.stderr
    assert "Traceback" not in done.stderr
    assert all(text in last for text in texts), last


def assert_run_equals_disk(twin: Twin, maskmill: Command, s3: Proxy) -> None:
    """A run gives what the disk has; the next one writes nothing but the lock."""
    done = maskmill("run", "--config", twin.config)
    assert done.returncode == 0, done.stderr
    assert_equal(download(twin.work), twin.expected)
    before = {name: tag for name, _, tag in s3_objects.listed(twin.work)}
    s3.requests.clear()
    done = maskmill("run", "--config", twin.config)
    assert "nothing to do" in done.stderr
    writes = [request for request in s3.requests if not request.startswith(("GET", "HEAD"))]
    assert all(request.endswith("/.lock") for request in writes), writes
    assert {name: tag for name, _, tag in s3_objects.listed(twin.work)} == before
    status = json.loads(maskmill("status", "--json", "--config", twin.config).stdout)
    assert {stage["state"] for stage in status["stages"]} == {"fresh"}


def test_stage_one_is_the_same_as_on_a_disk_and_the_next_run_does_nothing(
    stage_one: dict[str, Any], twin: Callable[..., Twin], maskmill: Command, s3: Proxy
) -> None:
    assert_run_equals_disk(twin(stage_one), maskmill, s3)


@pytest.mark.slow
def test_a_whole_run_is_the_same_as_on_a_disk_and_the_next_does_nothing(
    every_stage: dict[str, Any], twin: Callable[..., Twin], maskmill: Command, s3: Proxy
) -> None:
    made = twin(every_stage)
    assert_run_equals_disk(made, maskmill, s3)
    image_id = pq.read_table(
        pa.BufferReader(made.expected["manifests/tiny/images/part-00000.parquet"])
    )["image_id"][0]
    shown = maskmill("show", image_id, "--config", made.config)
    assert f"picture: {made.work}/artifacts/tiny/show/{image_id}.png" in shown.stdout


@pytest.mark.slow
def test_a_training_that_was_stopped_resumes_to_the_same_weights(
    every_stage: dict[str, Any], twin: Callable[..., Twin], maskmill: Command, s3: Proxy
) -> None:
    every_stage["train"]["steps"] = 3
    made = twin(every_stage)
    s3.faults.append(Fault("500", "PUT .*last.pt", times=100, after=1))
    assert_refused(maskmill("run", "--config", made.config), "last.pt")
    s3.faults.clear()
    done = maskmill("run", "--config", made.config)
    assert "resumes after step 1" in done.stderr
    assert_equal(download(made.work), made.expected)


@pytest.mark.slow
def test_worker_processes_take_their_shards_from_the_bucket(
    stage_one: dict[str, Any], twin: Callable[..., Twin], maskmill: Command
) -> None:
    made = twin(stage_one)
    done = maskmill("run", "--config", made.config, "--set", "cluster.workers=1")
    assert done.returncode == 0, done.stderr
    assert_equal(download(made.work), made.expected)


def test_answers_that_fail_or_are_late_at_first_change_nothing(
    stage_one: dict[str, Any], twin: Callable[..., Twin], maskmill: Command, s3: Proxy
) -> None:
    made = twin(stage_one)
    s3.faults += [
        Fault("500", "GET .*list-type=2.*data"),
        Fault("500", "GET .*data/labeled/images/0.png"),
        Fault("cut", "GET .*data/labeled/images/1.png"),
        Fault("slow", "GET .*data/val/masks/0.png"),
        Fault("500", "PUT .*mask/c/0"),
        Fault("slow", "PUT .*images/part-00000"),
        Fault("cut", "GET .*images/part-00000"),
    ]
    done = maskmill("run", "--config", made.config)
    assert done.returncode == 0, done.stderr
    assert s3.hits == 7
    assert_equal(download(made.work), made.expected)


@pytest.mark.parametrize(
    ("kind", "request_"),
    [
        ("cut", "GET .*data/labeled/images/1.png"),
        ("500", "GET .*data/labeled/masks/1.png"),
        ("500", "PUT .*confidence/c/1"),
        pytest.param("500", "PUT .*images/part-00001", marks=pytest.mark.slow),
    ],
)
def test_a_store_that_fails_stops_the_run_which_the_next_one_completes(
    stage_one: dict[str, Any],
    twin: Callable[..., Twin],
    maskmill: Command,
    s3: Proxy,
    kind: Any,
    request_: str,
) -> None:
    made = twin(stage_one)
    s3.faults.append(Fault(kind, request_, times=1000))
    name = request_.partition(".*")[2]
    done = maskmill("run", "--config", made.config)
    assert_refused(done, "the object store fails: ", name, "what is done stays done")
    left = download(made.work)
    assert all(left[name] == b"" for name in left if name.endswith(".lock"))
    parts = {name for name in left if name.endswith(".parquet")}
    assert parts < made.expected.keys()
    for part in parts:
        pd.testing.assert_frame_equal(rows(left[part]), rows(made.expected[part]))
    s3.faults.clear()
    assert maskmill("run", "--config", made.config).returncode == 0
    assert_equal(download(made.work), made.expected)


@pytest.mark.parametrize(
    "request_",
    [
        "PUT .*mask/c/1",
        pytest.param("PUT .*truth.zarr/[0-9a-f]*/zarr.json", marks=pytest.mark.slow),
        pytest.param("PUT .*confidence/c/1", marks=pytest.mark.slow),
        pytest.param("PUT .*images/part-00001", marks=pytest.mark.slow),
        pytest.param("PUT .*labeler.*/part-00001", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_is_killed_is_finished_by_the_next(
    stage_one: dict[str, Any],
    twin: Callable[..., Twin],
    maskmill: Command,
    s3: Proxy,
    request_: str,
) -> None:
    made = twin(stage_one)
    s3.faults.append(Fault("500", request_, times=1000))
    command = [sys.executable, "-m", "pipeline.cli", "run", "--config", str(made.config)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    until(lambda: s3.hits > 0)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    s3.faults.clear()
    refused = maskmill("run", "--config", made.config)
    assert_refused(refused, f"another command is working on this run: process {process.pid} on ")
    aged(f"{made.work}/manifests/tiny/.lock", 61)
    done = maskmill("run", "--config", made.config)
    assert done.returncode == 0, done.stderr
    assert_equal(download(made.work), made.expected)


def test_an_object_that_is_gone_or_forbidden_is_a_row(
    stage_one: dict[str, Any],
    data: Path,
    bucket: str,
    write_config: Callable[..., Path],
    maskmill: Command,
    s3: Proxy,
) -> None:
    upload(data, f"{bucket}/data")
    values = {**stage_one, "workspace": f"{bucket}/work", "data": f"{bucket}/data"}
    s3.faults.append(Fault("403", "GET .*data/ood/images/0.png", times=100))
    del values["pseudolabel"]
    done = maskmill("run", "--config", write_config(values))
    assert done.returncode == 0, done.stderr
    assert f"{bucket}/data/ood/images/0.png: cannot be read: Permission denied" in done.stderr


def test_verify_finds_and_mends_and_gc_deletes(
    stage_one: dict[str, Any],
    twin: Callable[..., Twin],
    maskmill: Command,
    write_config: Callable[..., Path],
) -> None:
    made = twin(stage_one)
    assert maskmill("run", "--config", made.config).returncode == 0
    assert "no damage" in maskmill("verify", "--config", made.config).stdout
    (shard,) = [name for name, _, _ in s3_objects.listed(made.work) if "mask/c/0/" in name]
    s3_objects.client().pipe_file(shard, b"something else")
    done = maskmill("verify", "--config", made.config)
    assert done.returncode == 1
    assert f"{shard}: not the bytes that were written" in done.stdout
    done = maskmill("verify", "--rerun", "--config", made.config)
    assert done.returncode == 0, done.stderr
    assert_equal(download(made.work), made.expected)
    pseudolabel = {**stage_one["pseudolabel"], "labelers": {"other": "files"}}
    data = made.work.replace("work", "data")
    renamed = {**stage_one, "workspace": made.work, "data": data, "pseudolabel": pseudolabel}
    told = maskmill("gc", "--config", write_config(renamed)).stdout
    assert f"deleted {made.work}/manifests/tiny/pseudo_labels/labeler=truth" in told
    assert f"deleted {made.work}/artifacts/tiny/pseudo_labels/truth.zarr" in told
    assert not [name for name in download(made.work) if "truth" in name]


def test_what_cannot_be_reached_is_told_in_a_line(
    stage_one: dict[str, Any],
    bucket: str,
    write_config: Callable[..., Path],
    maskmill: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(workspace: str, **more: Any) -> CompletedProcess[str]:
        config = write_config({**stage_one, "workspace": workspace, **more})
        return maskmill("run", "--config", config)

    assert_refused(run("s3://nobody-has-this/x"), "s3://nobody-has-this/", "no such bucket")
    assert_refused(run("s3:///x"), "workspace", "name the bucket")
    assert_refused(run("gs://bucket/x"), "workspace", "use a path or an address s3://")
    assert_refused(run(bucket, data=f"{bucket}/none"), "no such folder", f"{bucket}/none")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    forget_clients()
    assert_refused(run(bucket), "the object store fails: ", "127.0.0.1:1", "AWS_ENDPOINT_URL")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    forget_clients()
    assert_refused(run(bucket), "no credentials", "set AWS_ACCESS_KEY_ID")
