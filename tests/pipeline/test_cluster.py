import os
import threading
from functools import partial
from operator import neg
from pathlib import Path

import dask
import pytest
from distributed import LocalCluster

from pipeline.cluster import map_in_order
from pipeline.config import ClusterConfig, read_yaml
from pipeline.errors import ConfigError, MaskmillError

HERE = ClusterConfig()
PROCESSES = ClusterConfig(workers=2)

# On a busy machine Dask warns of the time it took to make a folder.
pytestmark = pytest.mark.filterwarnings("ignore:Creating scratch directories")


def test_results_come_in_the_order_of_the_tasks() -> None:
    assert list(map_in_order(HERE, neg, range(20))) == [-task for task in range(20)]


def test_nothing_to_do_starts_nothing() -> None:
    threads = threading.active_count()
    assert list(map_in_order(HERE, neg, [])) == []
    assert threading.active_count() == threads


def test_by_default_one_thread_of_this_process_does_all() -> None:
    def work(_: int) -> tuple[int, int]:
        return os.getpid(), threading.get_ident()

    [(process, _)] = set(map_in_order(HERE, work, range(8)))
    assert process == os.getpid()


def test_few_tasks_are_ahead_of_what_was_asked_for(tmp_path: Path) -> None:
    def work(task: int) -> None:
        (tmp_path / str(task)).touch()

    results = map_in_order(HERE, work, range(100))
    next(results)
    assert len(list(tmp_path.iterdir())) <= 4
    assert list(results) == [None] * 99
    assert len(list(tmp_path.iterdir())) == 100


def test_worker_processes_give_the_same_results_and_errors(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def work(task: int) -> tuple[int, int]:
        return -task, os.getpid()

    results = list(map_in_order(PROCESSES, work, range(12)))
    assert [result for result, _ in results] == [-task for task in range(12)]
    assert os.getpid() not in {process for _, process in results}
    read = partial(read_yaml, fix="write it")
    for cluster in (HERE, PROCESSES):
        with pytest.raises(ConfigError) as error:
            list(map_in_order(cluster, read, [tmp_path / "none.yaml"]))
        assert str(error.value) == (
            f"{tmp_path}/none.yaml: cannot read the file: No such file or directory; write it"
        )
    assert capfd.readouterr().err == ""


def test_a_running_scheduler_is_used() -> None:
    with LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=1, processes=False, protocol="tcp://", dashboard_address="localhost:0"
    ) as running:
        cluster = ClusterConfig(address=running.scheduler_address)
        assert list(map_in_order(cluster, neg, range(5))) == [0, -1, -2, -3, -4]


def test_a_scheduler_that_does_not_answer_is_named() -> None:
    address = "tcp://127.0.0.1:1"
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "100ms"}),
        pytest.raises(ConfigError) as error,
    ):
        list(map_in_order(ClusterConfig(address=address), neg, [1]))
    assert str(error.value).startswith(f"cluster.address: no Dask scheduler at {address}: ")
    assert str(error.value).endswith("; start one there with `dask scheduler`, or drop the key")
    assert "\n" not in str(error.value)


def test_a_worker_that_dies_is_told_in_one_line() -> None:
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        pytest.raises(MaskmillError) as error,
    ):
        list(map_in_order(ClusterConfig(workers=1), os._exit, [9]))
    assert str(error.value) == (
        "cluster: a worker process died, maybe for want of memory; "
        "set fewer `cluster.workers` or a smaller `batch_size`"
    )
