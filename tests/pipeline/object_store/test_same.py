"""Whole runs with data and workspace in an object store: the same as on a disk."""

import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.files import s3_objects
from tests.pipeline.object_store.twins import (
    Command,
    Twin,
    assert_equal,
    assert_refused,
    download,
)
from tests.s3_server import Fault, Proxy


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
