"""Runs the shards of a stage on the cluster, and commits each one as it is finished."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from pipeline.engine.cluster import Job, Lost, run_jobs
from pipeline.engine.stage import Context, Unit
from pipeline.errors import MaskmillError
from pipeline.files import s3_lease
from pipeline.stopping import Stopped

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
Row = TypeVar("Row", bound=Mapping[str, Any])

_NAMED = 5
"""Failed shards that the error names."""


@dataclass(frozen=True)
class ShardResult(Generic[Row]):
    """What a worker says it did.

    Attributes:
        rows: A manifest row for each image of the shard, in order.
        files: The SHA-256 of each file that it wrote.
    """

    rows: list[Row]
    files: Mapping[Path, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardWork(Generic[K, T]):
    """A shard to do.

    Attributes:
        unit: Its unit.
        images: The number of its images.
        task: Makes the argument of the worker's function; called when the shard is submitted.
    """

    unit: Unit[K]
    images: int
    task: Callable[[], T]


def run_shards(
    stage: str,
    work: Sequence[ShardWork[K, T]],
    function: Callable[[T], ShardResult[Row]],
    commit: Callable[[Unit[K], ShardResult[Row]], None],
    context: Context,
) -> None:
    """Runs a function over shards and passes each result to `commit`, in this process.

    Raises:
        MaskmillError: Shards were lost with their workers in every attempt; the others are done.
            Or what the function raised.
        Stopped: Something asked to stop; its text says how many shards are done.
    """
    units = [item.unit for item in work]
    jobs = (Job(item.unit.name, item.task(), number) for number, item in enumerate(work))
    failed: list[str] = []
    cluster = context.config.run.cluster
    images = sum(item.images for item in work)
    locked = partial(_under_locks, s3_lease.lendable(), function)
    done = 0
    try:
        with (
            context.console.shards(stage, len(work), images) as progress,
            closing(run_jobs(cluster, locked, jobs, progress.watch)) as results,
        ):
            for job, result in results:
                if isinstance(result, Lost):
                    failed.append(job.name)
                    progress.fail(job.name)
                    continue
                commit(units[job.number], result)
                progress.advance(len(result.rows))
                done += 1
    except Stopped as stopped:
        raise Stopped(f"{stage}: {done} of {len(work)} shards are done") from stopped
    if failed:
        more = f" and {len(failed) - _NAMED} more" if failed[_NAMED:] else ""
        names = f"{', '.join(failed[:_NAMED])}{more}"
        what = (
            f"{len(failed)} of {len(work)} shards failed: the worker process died in each of "
            f"{1 + cluster.retries} attempts, perhaps because memory ran out: {names}"
        )
        fix = "the other shards are done; run again with fewer `cluster.workers` or a smaller batch"
        raise MaskmillError(what, where=stage, fix=fix)


def _under_locks(
    locks: Sequence[tuple[str, str]], function: Callable[[T], ShardResult[Row]], task: T
) -> ShardResult[Row]:
    """Runs on a worker, which writes nothing once the run belongs to another command."""
    with s3_lease.lent(locks):
        return function(task)
