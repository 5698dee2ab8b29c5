"""Where stage one runs: Dask distributed, inside this process unless the config says otherwise."""

import logging
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Event
from typing import Any, TypeVar

import dask
from distributed import Client, KilledWorker, LocalCluster, wait

from pipeline.config import ClusterConfig
from pipeline.errors import ConfigError, MaskmillError

T = TypeVar("T")
R = TypeVar("R")

_WINDOW = 4
"""Tasks submitted ahead of the oldest unfinished one, a worker: memory stays flat at any length."""
_ALERT_S = 0.2
"""How long Ctrl-C may go unnoticed while a result is awaited."""


def map_in_order(
    cluster: ClusterConfig, function: Callable[[T], R], tasks: Sequence[T]
) -> Iterator[R]:
    """Runs a function over tasks on the cluster's workers, one task a worker at a time.

    Only the main thread may call it, for it looks after Ctrl-C.

    Args:
        cluster: One thread in this process, local worker processes, or a running scheduler.
        function: Picklable; what is slow to build it keeps for the next call in its process.
        tasks: Picklable arguments.

    Yields:
        The results in the order of the tasks.

    Raises:
        ConfigError: The scheduler does not answer.
        MaskmillError: A worker process died, or what `function` raised.
    """
    if not tasks:
        return
    settings = {
        "distributed.admin.tick.limit": "1h",
        "distributed.worker.daemon": False,
        "distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "critical",
    }
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # errors are told by us
    # Ctrl-C is noted and raised between results: raised inside Dask it gets lost now and then.
    interrupted = Event()
    with (
        dask.config.set(settings),
        _connected(cluster) as client,
        _on_interrupt(lambda *_: interrupted.set()),
    ):
        workers = max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
        waiting: deque[Any] = deque()
        for task in tasks:
            waiting.append(client.submit(_attempt, function, task, pure=False))
            if len(waiting) >= _WINDOW * workers:
                yield _result(waiting.popleft(), interrupted)
        while waiting:
            yield _result(waiting.popleft(), interrupted)
    if interrupted.is_set():
        raise KeyboardInterrupt


def _attempt(function: Callable[[T], R], task: T) -> R | MaskmillError | OSError:
    """Hands back what a user can mend as a result: of what is raised, workers log a traceback."""
    try:
        return function(task)
    except (MaskmillError, OSError) as error:
        return error


def _result(task: Any, interrupted: Event) -> Any:
    while not task.done():
        if interrupted.is_set():
            raise KeyboardInterrupt
        with suppress(TimeoutError):
            wait(task, timeout=_ALERT_S)  # type: ignore[no-untyped-call]
    try:
        result = task.result()
    except KilledWorker as error:
        what = "a worker process died, maybe for want of memory"
        fix = "set fewer `cluster.workers` or a smaller `batch_size`"
        raise MaskmillError(what, where="cluster", fix=fix) from error
    if isinstance(result, MaskmillError | OSError):
        raise result
    return result


@contextmanager
def _connected(cluster: ClusterConfig) -> Iterator[Any]:
    if cluster.address is not None:
        with _client_of(cluster.address) as client:
            yield client
        return
    with _on_interrupt(signal.SIG_IGN):  # of the workers for good: this process ends them
        local = LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=max(1, cluster.workers),
            threads_per_worker=1,
            processes=cluster.workers > 0,
            dashboard_address="localhost:0",  # any free port
            memory_limit=0,
        )
    with local, Client(local) as client:  # type: ignore[no-untyped-call]
        yield client


@contextmanager
def _on_interrupt(handler: Callable[[int, Any], None] | signal.Handlers) -> Iterator[None]:
    """Changes what Ctrl-C does; processes that start while it is ignored ignore it for good."""
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _client_of(address: str) -> Any:
    try:
        return Client(address)  # type: ignore[no-untyped-call]
    except OSError as error:
        reason = " ".join(str(error).split())
        what = f"no Dask scheduler at {address}: {reason}"
        fix = "start one there with `dask scheduler`, or drop the key"
        raise ConfigError(what, where="cluster.address", fix=fix) from error
