"""Does the shards of a stage on the cluster, and commits each as it comes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pipeline.engine.cluster import Job, Lost, run_jobs
from pipeline.engine.stage import Context, Unit
from pipeline.errors import MaskmillError

T = TypeVar("T")
Row = TypeVar("Row")

_NAMED = 5
"""Failed shards that the error names."""


@dataclass(frozen=True)
class ShardWork(Generic[T]):
    """A shard to do.

    Attributes:
        unit: What it counts as.
        images: How many images it has.
        task: What the worker is given; made when the shard's turn comes.
    """

    unit: Unit
    images: int
    task: Callable[[], T]


def run_shards(
    stage: str,
    work: Sequence[ShardWork[T]],
    function: Callable[[T], list[Row]],
    commit: Callable[[Unit, list[Row]], None],
    context: Context,
) -> None:
    """Runs a function over shards and hands each one's rows to `commit`, in this process.

    Raises:
        MaskmillError: Shards were lost with their workers again and again; the others are done.
            Or what the function raised.
    """
    units = {item.unit.name: item for item in work}
    jobs = (Job(item.unit.name, item.task()) for item in work)
    failed: list[str] = []
    cluster = context.config.run.cluster
    images = sum(item.images for item in work)
    with context.console.shards(stage, len(work), images) as progress:
        for job, rows in run_jobs(cluster, function, jobs, progress.watch):
            if isinstance(rows, Lost):
                failed.append(job.name)
                progress.fail(job.name)
                continue
            commit(units[job.name].unit, rows)
            progress.advance(len(rows))
    if failed:
        more = f" and {len(failed) - _NAMED} more" if failed[_NAMED:] else ""
        names = f"{', '.join(failed[:_NAMED])}{more}"
        what = (
            f"{len(failed)} of {len(work)} shards failed: the worker process died in each of "
            f"{1 + cluster.retries} attempts, maybe for want of memory: {names}"
        )
        fix = "the other shards are done; run again with fewer `cluster.workers` or a smaller batch"
        raise MaskmillError(what, where=stage, fix=fix)
