"""Where stage one runs: Dask distributed, inside this process unless the config says otherwise."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import dask
from distributed import Client, LocalCluster

from pipeline.config import ClusterConfig

T = TypeVar("T")
R = TypeVar("R")

_WINDOW = 4
"""Tasks submitted ahead of the oldest unfinished one, a worker: memory stays flat at any length."""


def map_in_order(
    cluster: ClusterConfig, function: Callable[[T], R], tasks: Sequence[T]
) -> Iterator[R]:
    """Runs a function over tasks on the cluster's workers, one task a worker at a time.

    Args:
        cluster: One thread in this process, local worker processes, or a running scheduler.
        function: Picklable; what is slow to build it keeps for the next call in its process.
        tasks: Picklable arguments.

    Yields:
        The results in the order of the tasks.
    """
    if not tasks:
        return
    settings = {"distributed.admin.tick.limit": "1h", "distributed.worker.daemon": False}
    logging.getLogger("distributed").setLevel(logging.ERROR)
    with dask.config.set(settings), _connected(cluster) as client:
        workers = max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
        waiting: deque[Any] = deque()
        for task in tasks:
            waiting.append(client.submit(function, task, pure=False))
            if len(waiting) >= _WINDOW * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def _connected(cluster: ClusterConfig) -> Iterator[Any]:
    if cluster.address is not None:
        with Client(cluster.address) as client:  # type: ignore[no-untyped-call]
            yield client
        return
    with (
        LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=max(1, cluster.workers),
            threads_per_worker=1,
            processes=cluster.workers > 0,
            dashboard_address="localhost:0",  # any free port
            memory_limit=0,
        ) as local,
        Client(local) as client,  # type: ignore[no-untyped-call]
    ):
        yield client
