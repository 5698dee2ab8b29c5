"""Runs in an object store that fails, and runs that are killed."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pandas as pd
import pytest

from pipeline.files import s3_objects
from tests.pipeline.object_store.twins import (
    Command,
    Twin,
    assert_equal,
    assert_refused,
    download,
    rows,
    upload,
)
from tests.s3_server import Fault, Proxy, aged, forget_clients, until


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
        pytest.param("500", "GET .*data/labeled/masks/1.png", marks=pytest.mark.slow),
        pytest.param("500", "PUT .*confidence/c/1", marks=pytest.mark.slow),
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
        pytest.param("PUT .*mask/c/1", marks=pytest.mark.slow),
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
    command = [sys.executable, "-m", "maskmill", "run", "--config", str(made.config)]
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


@pytest.mark.slow
def test_verify_finds_and_repairs_and_gc_deletes(
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
    printed = maskmill("gc", "--config", write_config(renamed)).stdout
    assert f"deleted {made.work}/manifests/tiny/pseudo_labels/labeler=truth" in printed
    assert f"deleted {made.work}/artifacts/tiny/pseudo_labels/truth.zarr" in printed
    assert not [name for name in download(made.work) if "truth" in name]


def test_what_cannot_be_reached_is_reported_in_a_line(
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
