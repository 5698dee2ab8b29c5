"""Dask clusters of this machine that no other user can reach: a thread, or worker processes."""

import os
from multiprocessing import resource_tracker
from typing import Any

from distributed import Nanny, Scheduler, SpecCluster, Worker
from distributed.security import Security

from pipeline import stopping
from pipeline.engine.gpus import visible_gpus


class _NoHttp:
    """Part of a Dask node that serves no pages, and so listens on no port for them."""

    def start_http_server(self, *_: object, **__: object) -> None:
        """Does nothing."""


class _Scheduler(_NoHttp, Scheduler):
    """The scheduler of a local cluster."""


class _Worker(_NoHttp, Worker):
    """A worker of a local cluster."""


def worker_thread() -> Any:
    """A worker thread of this process, which listens on no port."""
    options = {"protocol": "inproc://", "dashboard": False}
    worker = {"nthreads": 1, "memory_limit": 0}
    return SpecCluster(  # type: ignore[no-untyped-call]
        workers={0: {"cls": _Worker, "options": worker}},
        scheduler={"cls": _Scheduler, "options": options},
        silence_logs=False,
    )


def worker_processes(count: int) -> Any:
    """Worker processes on this machine; each sees one of the GPUs, in turn.

    They and the scheduler know each other by certificates of this command, so that no other user
    of the machine can give or take work.
    """
    gpus = visible_gpus()
    security = Security.temporary()  # type: ignore[no-untyped-call]
    here = {"host": "127.0.0.1", "protocol": "tls://", "security": security}
    workers = {}
    for number in range(count):
        env = {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}
        options = {**here, "nthreads": 1, "memory_limit": 0, "env": env, "worker_class": _Worker}
        workers[number] = {"cls": Nanny, "options": options}
    scheduler = {**here, "port": 0, "dashboard": False}
    _start_resource_tracker()
    with stopping.without_signals():  # a terminal's are for this process, which ends the workers
        return SpecCluster(  # type: ignore[no-untyped-call]
            workers=workers,
            scheduler={"cls": _Scheduler, "options": scheduler},
            security=security,
            silence_logs=False,
        )


def _start_resource_tracker() -> None:
    """Starts the helper of multiprocessing before any worker.

    It would let signals through to the thread that starts it, and so to the workers, and it warns
    of semaphores, which it removes, when this process ends at once.
    """
    name = "PYTHONWARNINGS"
    before = os.environ.get(name)
    ignored = "ignore::UserWarning:multiprocessing.resource_tracker"
    os.environ[name] = ",".join(filter(None, (before, ignored)))
    try:
        resource_tracker.ensure_running()
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
