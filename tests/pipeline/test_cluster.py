import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from operator import neg
from pathlib import Path
from typing import Any

import dask
import pytest
from dask.utils import key_split
from distributed import Client, LocalCluster, default_client, get_worker
from distributed.security import Security

from pipeline.config.config import ClusterConfig
from pipeline.config.yaml_files import read_yaml
from pipeline.engine import image_progress, worker_code
from pipeline.engine.cluster import KEY_PREFIX, Job, Lost, run_jobs
from pipeline.errors import ConfigError, MaskmillError
from tests.repository import ROOT

HERE = ClusterConfig()
PROCESSES = ClusterConfig(workers=2)

# On a busy machine Dask warns of the time it took to make a folder.
pytestmark = pytest.mark.filterwarnings("ignore:Creating scratch directories")


def jobs(tasks: Iterable[Any]) -> Iterable[Job[Any]]:
    return (Job(f"job {task}", task) for task in tasks)


def results(cluster: ClusterConfig, function: Any, tasks: Iterable[Any]) -> dict[Any, Any]:
    """The result of each task."""
    return {job.task: result for job, result in run_jobs(cluster, function, jobs(tasks))}


def test_every_job_comes_back_with_its_result() -> None:
    assert results(HERE, neg, range(20)) == {task: -task for task in range(20)}


def test_nothing_to_do_starts_nothing() -> None:
    threads = threading.active_count()
    assert results(HERE, neg, []) == {}
    assert threading.active_count() == threads


def test_by_default_one_thread_of_this_process_does_all() -> None:
    def work(_: int) -> tuple[int, int]:
        return os.getpid(), threading.get_ident()

    [(process, _)] = set(results(HERE, work, range(8)).values())
    assert process == os.getpid()


def test_few_tasks_are_asked_for_and_done_ahead(tmp_path: Path) -> None:
    asked = []

    def work(task: int) -> None:
        (tmp_path / str(task)).touch()

    def ask() -> Iterable[Job[int]]:
        for task in range(100):
            asked.append(task)
            yield Job(str(task), task)

    found = run_jobs(HERE, work, ask())
    next(found)
    assert len(asked) <= 5
    assert len(list(tmp_path.iterdir())) <= 5
    assert len(list(found)) == 99
    assert len(list(tmp_path.iterdir())) == 100


def test_nothing_is_kept_of_jobs_that_are_done() -> None:
    """By the client, by the scheduler, and by what Dask remembers of keys."""
    running = run_jobs(HERE, neg, (Job(f"labels {task} of clip", task) for task in range(60)))
    for _ in range(56):
        next(running)
    client = default_client()  # type: ignore[no-untyped-call]
    scheduler, deadline = client.cluster.scheduler, time.monotonic() + 60
    while max(len(client.futures), len(scheduler.tasks)) > 8 and time.monotonic() < deadline:
        threading.Event().wait(0.01)  # released keys are told from thread to thread
    assert len(client.futures) <= 8
    assert len(scheduler.tasks) <= 8
    assert {*scheduler.task_prefixes} == {*scheduler.task_groups} == {KEY_PREFIX}
    assert key_split.cache_info().currsize <= 8
    assert len(scheduler.computations) == 1
    assert len([*running]) == 4


def test_worker_processes_give_the_same_results_and_errors(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def work(task: int) -> tuple[int, int]:
        return -task, os.getpid()

    found = results(PROCESSES, work, range(12))
    assert {task: result for task, (result, _) in found.items()} == {t: -t for t in range(12)}
    assert os.getpid() not in {process for _, process in found.values()}
    read = partial(read_yaml, fix="write it")
    for cluster in (HERE, PROCESSES):
        with pytest.raises(ConfigError) as error:
            results(cluster, read, [tmp_path / "none.yaml"])
        assert str(error.value) == (
            f"{tmp_path}/none.yaml: cannot read the file: No such file or directory; write it"
        )
    assert capfd.readouterr().err == ""


def test_a_running_scheduler_is_used() -> None:
    with LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=1, processes=False, protocol="tcp://", dashboard_address="localhost:0"
    ) as running:
        cluster = ClusterConfig(address=running.scheduler_address)
        assert results(cluster, neg, range(5)) == {task: -task for task in range(5)}


def listening(process: int) -> list[str]:
    """The ports on which a process listens."""
    tables = [Path("/proc/net", name).read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table]
    open_ = {f"socket:[{row[9]}]": row[1] for row in rows if row[3] == "0A"}
    files = [
        str(link.readlink()) for link in Path(f"/proc/{process}/fd").iterdir() if link.is_symlink()
    ]
    return [open_[name] for name in files if name in open_]


def test_the_thread_of_this_process_listens_on_no_port() -> None:
    before = listening(os.getpid())
    running = run_jobs(HERE, neg, jobs(range(3)))
    next(running)
    assert listening(os.getpid()) == before
    assert len(list(running)) == 2


def test_nobody_without_its_certificates_reaches_a_local_cluster() -> None:
    def addresses(_: int) -> list[str]:
        worker = get_worker()
        return [worker.scheduler.address, worker.address]

    running = run_jobs(PROCESSES, addresses, jobs(range(40)))
    _, found = next(running)
    assert isinstance(found, list)
    assert all(address.startswith("tls://127.0.0.1:") for address in found)
    refused = r"[Cc]onnect|certificate|TLS|[Tt]imed out"  # as soon as one side notices
    short = {"distributed.comm.timeouts.connect": "300ms"}
    for address in found:
        own = Security.temporary()  # type: ignore[no-untyped-call]
        for protocol, security in (("tls", own), ("tcp", None)):
            other = address.replace("tls://", f"{protocol}://")
            with dask.config.set(short), pytest.raises(OSError, match=refused):
                Client(other, security=security, timeout="300ms")  # type: ignore[no-untyped-call]
    list(running)


def test_a_scheduler_that_does_not_answer_is_named() -> None:
    address = "tcp://127.0.0.1:1"
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "100ms"}),
        pytest.raises(ConfigError) as error,
    ):
        results(ClusterConfig(address=address), neg, [1])
    assert str(error.value).startswith(f"cluster.address: no Dask scheduler at {address}: ")
    assert str(error.value).endswith("; start one there with `dask scheduler`, or drop the key")
    assert "\n" not in str(error.value)


def test_a_job_that_kills_its_workers_is_lost_and_no_other(tmp_path: Path) -> None:
    """It takes others with it, which are done all the same; it has as many attempts as allowed."""

    def work(task: int) -> int:
        with (tmp_path / str(task)).open("a") as log:
            log.write("x")
        if task == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return -task

    found = results(ClusterConfig(workers=2, retries=1), work, range(12))
    assert found.pop(3) == Lost(2)
    assert found == {task: -task for task in range(12) if task != 3}
    assert (tmp_path / "3").read_text() == "xx"


def test_a_job_whose_worker_is_killed_once_is_done(tmp_path: Path) -> None:
    def work(task: int) -> int:
        died = tmp_path / "died"
        if task == 1 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return -task

    assert results(PROCESSES, work, range(4)) == {task: -task for task in range(4)}
    assert (tmp_path / "died").exists()


def test_workers_share_out_the_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def work(_: int) -> tuple[int, str]:
        return os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"]

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-7")
    found = set(results(PROCESSES, work, range(16)).values())
    assert len({process for process, _ in found}) == len(found) <= 2
    assert {gpu for _, gpu in found} <= {"4", "GPU-7"}
    assert len({gpu for _, gpu in found}) == len(found)


def test_it_is_reported_what_the_workers_do(tmp_path: Path) -> None:
    printed: list[dict[str, str]] = []
    counts: list[int] = []

    def watch(workers: Any, images: int) -> None:
        printed.append(dict(workers))
        counts.append(images)
        if images:
            (tmp_path / "told").touch()

    def work(task: int) -> int:
        image_progress.report(3)
        while not (tmp_path / "told").exists():
            threading.Event().wait(0.01)
        return task

    list(run_jobs(PROCESSES, work, jobs(range(6)), watch))
    busy = [job for workers in printed for job in workers.values() if job]
    assert busy
    known = {f"job {task}, {images} images" for task in range(6) for images in (0, 3)}
    assert set(busy) <= known
    assert 3 in counts or 6 in counts


WITHOUT_NETWORK = """
import errno, socket

class Offline(socket.socket):
    def connect(self, address):
        if address[0] != "127.0.0.1":
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
        return super().connect(address)

socket.socket = Offline
from pipeline.config.config import ClusterConfig
from pipeline.engine.cluster import Job, run_jobs
for workers in (0, 1):
    [(job, result)] = run_jobs(ClusterConfig(workers=workers), abs, [Job("one", -1)])
    print(result)
"""


def test_no_network_at_all_is_needed() -> None:
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", WITHOUT_NETWORK]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n1\n", "")


@contextmanager
def worker_of(code: Path, scheduler: str, tmp_path: Path) -> Iterator[None]:
    """A worker process that imports Maskmill from a folder."""
    environment = {**os.environ, "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "distributed.cli.dask_worker", scheduler, "--nthreads", "1"]
    command += ["--no-nanny", "--no-dashboard", "--local-directory", str(tmp_path / "scratch")]
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as worker:
        try:
            yield
        finally:
            worker.terminate()


@pytest.mark.parametrize(
    "change", ["a former version", pytest.param("a line", marks=pytest.mark.slow)]
)
def test_a_worker_of_other_code_refuses(change: str, tmp_path: Path) -> None:
    """It was started from a checkout that has been updated since."""
    code = tmp_path / "code"
    for package in ("pipeline", "stages"):
        shutil.copytree(ROOT / package, code / package, ignore=shutil.ignore_patterns("*.pyc"))
    with LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=0, protocol="tcp://", dashboard_address="localhost:0"
    ) as running:
        cluster = ClusterConfig(address=running.scheduler_address)
        if change == "a line":
            with (code / "stages/pseudolabel/voting.py").open("a") as file:
                file.write("# another line")
            text = (
                r"on .*: it has other code than this command: code of Maskmill \w{12}, not \w{12}"
            )
        else:
            module = code / "pipeline/engine/cluster.py"
            former = module.read_text().replace("code: Mapping[str, str], function", "function")
            module.write_text(former.replace("worker_code.check_same(code)", "pass"))
            text = "a worker of the cluster: it has other code than this command: a former"
        with (
            worker_of(code, running.scheduler_address, tmp_path),
            pytest.raises(MaskmillError, match=text) as caught,
        ):
            results(cluster, neg, range(3))
        assert "start the worker again; it has labeled nothing" in str(caught.value)


def test_a_worker_of_the_same_code_elsewhere_works(tmp_path: Path) -> None:
    code = tmp_path / "code"
    for package in ("pipeline", "stages"):
        shutil.copytree(ROOT / package, code / package, ignore=shutil.ignore_patterns("*.pyc"))
    with LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=0, protocol="tcp://", dashboard_address="localhost:0"
    ) as running:
        cluster = ClusterConfig(address=running.scheduler_address)
        with worker_of(code, running.scheduler_address, tmp_path):
            assert results(cluster, neg, range(3)) == {task: -task for task in range(3)}


def test_what_differs_is_named() -> None:
    other = {**worker_code.OWN, "torch": "0.1", "more": "1"}
    with pytest.raises(MaskmillError) as caught:
        worker_code.check_same(other)
    torch = worker_code.OWN["torch"]
    assert f"torch {torch}, not 0.1, more missing, not 1; install" in str(caught.value)
    worker_code.check_same({**worker_code.OWN})
