"""Runs jobs on workers of Dask distributed; by default on one thread of this process."""

import logging
import time
import uuid
import warnings
from asyncio import CancelledError
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

import dask
from dask.utils import key_split
from distributed import Client, KilledWorker, wait

from pipeline import stopping
from pipeline.config.config import ClusterConfig
from pipeline.engine import worker_code
from pipeline.engine.image_progress import TOPIC, ImageCounts
from pipeline.engine.local_cluster import worker_processes, worker_thread
from pipeline.errors import ConfigError, MaskmillError
from pipeline.stopping import Stopped

T = TypeVar("T")
R = TypeVar("R")

KEY_PREFIX = "maskmill-job"
"""What the keys of all jobs begin with."""
_WINDOW = 4
"""Tasks submitted and not yet done, a worker: memory stays flat at any length."""
_ALERT_S = 0.2
"""Seconds between checks whether to stop, while waiting for a result."""
_REMEMBERED = 100
"""Events of finished tasks that Dask keeps in each of its logs."""
_WATCH_S = 1.0
"""Seconds between reports of what each worker does."""


@dataclass(frozen=True)
class Lost:
    """Instead of a result: the worker died in every attempt.

    Attributes:
        attempts: Number of attempts.
    """

    attempts: int


@dataclass(frozen=True)
class Job(Generic[T]):
    """A task for a worker.

    Attributes:
        name: Names it in messages and in Dask's dashboard.
        task: The argument of the function.
        number: Its position among all jobs, for the caller.
    """

    name: str
    task: T
    number: int = 0


Watch = Callable[[Mapping[str, str], int], None]
"""Called now and then with the current job of each worker, empty if it is idle, and the number of
images of unfinished jobs that are done."""


def run_jobs(
    cluster: ClusterConfig,
    function: Callable[[T], R],
    jobs: Iterable[Job[T]],
    watch: Watch | None = None,
) -> Generator[tuple[Job[T], R | Lost], None, None]:
    """Runs a function over tasks on the cluster's workers, one task a worker at a time.

    When a worker dies, all jobs that it had are lost. They are retried one by one after all others,
    `cluster.retries` times, so that one bad job cannot fail others.

    When something asks to stop, workers stop after their batch, and results that are there are
    yielded. They stop too when the caller closes the iterator.

    Args:
        cluster: One thread in this process, local worker processes, or a running scheduler.
        function: Picklable; caches in its process what is slow to build.
        jobs: Jobs with picklable tasks; taken as workers become free, never all at once.
        watch: Called with the current jobs of the workers.

    Yields:
        Each job with its result, in the order of completion.

    Raises:
        ConfigError: The scheduler does not answer.
        MaskmillError: The scheduler is gone, or what `function` raised.
        Stopped: Something asked to stop.
    """
    todo = iter(jobs)
    if (first := next(todo, None)) is None:
        return
    settings = {
        "distributed.admin.tick.limit": "1h",
        # What a scheduler and a worker remember of finished tasks, for Dask's developers.
        "distributed.admin.log-length": _REMEMBERED,
        "distributed.admin.low-level-log-length": _REMEMBERED,
        "distributed.diagnostics.computations.max-history": 1,
        "distributed.worker.profile.enabled": False,
        "distributed.scheduler.allowed-failures": 0,  # counted here
        "distributed.worker.daemon": False,
        "distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "critical",
        # Dask makes workers return freed memory at once, so that each new array is zeroed again.
        "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
    }
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # errors are reported here
    with dask.config.set(settings), _connected(cluster) as client:
        flight = _Flight(client, function, watch)
        if watch is not None:
            client.subscribe_topic(TOPIC, flight.counts.hear)
        try:
            flight.submit(first)
            suspects: deque[Job[T]] = deque()
            for job in todo:
                if stopping.asked():
                    break
                flight.submit(job)
                while flight.is_full:
                    yield from _results(flight.landed(), suspects)
            while flight.futures:
                yield from _results(flight.landed(), suspects)
            for suspect in suspects:
                stopping.check()
                yield suspect, flight.run_alone(suspect, cluster.retries)
        finally:
            flight.end()
    stopping.check()


def _results(
    landed: Iterable[tuple[Job[T], R | Lost | Stopped]], suspects: deque[Job[T]]
) -> Iterator[tuple[Job[T], R]]:
    """Results; jobs that were lost with a worker are kept for a retry."""
    for job, result in landed:
        if isinstance(result, Lost):
            suspects.append(job)
        elif not isinstance(result, Stopped):
            yield job, result


@dataclass
class _Flight(Generic[T, R]):
    """The tasks that are submitted and not yet done."""

    client: Any
    function: Callable[[T], R]
    watch: Watch | None
    futures: dict[Any, Job[T]] = field(default_factory=dict)
    counts: ImageCounts = field(default_factory=ImageCounts)
    _work: str = field(default_factory=lambda: uuid.uuid4().hex)
    _is_ended: bool = False
    _watched: float = 0.0

    def submit(self, job: Job[T]) -> None:
        # Dask keeps statistics of the words before the number for as long as its scheduler runs, so
        # they are the same for all jobs; the name comes last, for the dashboard.
        key = f"{KEY_PREFIX}-{uuid.uuid4().hex}-{job.name}"
        attempt = partial(_attempt, worker_code.OWN, self.function, self._work)
        future = self.client.submit(attempt, job.task, key=key, pure=False)
        self.futures[future] = job

    @property
    def is_full(self) -> bool:
        workers = max(1, len(self.client.scheduler_info(n_workers=-1)["workers"]))
        return len(self.futures) >= _WINDOW * workers

    def end(self) -> None:
        """Lets workers stop after their batch, and not begin what waits for them."""
        if self.futures and not self._is_ended and self.client.status == "running":
            self._is_ended = True
            self.client.run(stopping.end, self._work, on_error="ignore")

    def landed(self) -> list[tuple[Job[T], R | Lost | Stopped]]:
        """Waits until jobs are done or stopped, and returns them with their results."""
        done: list[Any] = []
        while not done:
            if stopping.asked():
                self.end()
            with suppress(TimeoutError):
                wait(list(self.futures), timeout=_ALERT_S, return_when="FIRST_COMPLETED")  # type: ignore[no-untyped-call]
            done = [future for future in self.futures if future.done()]
            self._report()
        _forget_keys()
        for future in done:
            self.counts.forget(future.key)
        return [(self.futures.pop(future), _result(future)) for future in done]

    def run_alone(self, job: Job[T], retries: int) -> R | Lost:
        """The result of a job while no other job runs."""
        for _ in range(retries):
            self.submit(job)
            ((_, result),) = self.landed()
            if isinstance(result, Stopped):
                raise result
            if not isinstance(result, Lost):
                return result
        return Lost(1 + retries)

    def _report(self) -> None:
        if self.watch is None or time.monotonic() - self._watched < _WATCH_S:
            return
        self._watched = time.monotonic()
        names = {future.key: job.name for future, job in self.futures.items()}
        images = {key: self.counts.of(key) for key in names}
        jobs = {key: f"{name}, {images[key]} images" for key, name in names.items()}
        busy = self.client.processing()
        current = {worker: jobs.get(next(iter(busy[worker]), ""), "") for worker in busy}
        self.watch(current, sum(images.values()))


def _attempt(
    code: Mapping[str, str], function: Callable[[T], R], work: str, task: T
) -> R | MaskmillError | OSError | Stopped:
    """Returns user errors as results, because workers log a traceback of everything raised."""
    try:
        worker_code.check_same(code)
        with stopping.working(work):
            stopping.check()
            return function(task)
    except (MaskmillError, OSError, Stopped) as error:
        return error
    finally:
        _forget_keys()


def _forget_keys() -> None:
    """Empties Dask's cache of keys in this process, which would hold the last 100,000 of them."""
    with suppress(AttributeError):  # a version without such a cache
        key_split.cache_clear()


def _result(future: Any) -> Any:
    try:
        result = future.result()
    except KilledWorker:
        return Lost(1)
    except CancelledError as error:
        if future.client.status == "running":
            return Lost(1)  # done, but its worker died before the result was fetched
        what, fix = "the Dask scheduler is gone", "start it and run again; what is done stays done"
        raise MaskmillError(what, where="cluster", fix=fix) from error
    except TypeError as error:
        if "_attempt" not in str(error):
            raise
        # A version that compares no code yet takes fewer arguments.
        raise worker_code.other_code("a former version", "a worker of the cluster") from error
    if isinstance(result, MaskmillError | OSError):
        raise result
    return result


@contextmanager
def _connected(cluster: ClusterConfig) -> Iterator[Any]:
    if cluster.address is not None:
        with _client_of(cluster.address) as client:
            yield client
        return
    with warnings.catch_warnings():
        # Dask looks for this machine's address on the way to 8.8.8.8, and needs none here.
        warnings.filterwarnings("ignore", "Couldn't detect a suitable IP", RuntimeWarning)
        local = worker_processes(cluster.workers) if cluster.workers else worker_thread()
    with local, Client(local) as client:  # type: ignore[no-untyped-call]
        yield client


def _client_of(address: str) -> Any:
    try:
        return Client(address)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        what = f"no Dask scheduler at {address}: {reason}"
        fix = "start one there with `dask scheduler`, or drop the key"
        raise ConfigError(what, where="cluster.address", fix=fix) from error
