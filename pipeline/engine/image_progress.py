"""Progress inside a shard: workers tell the driver how many images of their job are done."""

from typing import Any

from distributed import get_worker

TOPIC = "maskmill-images"
"""The topic of Dask's events that these messages have."""


def report(images: int) -> None:
    """Tells the driver how many images of this worker's job are done; a worker calls this.

    Outside of Dask it does nothing.
    """
    try:
        worker = get_worker()
    except ValueError:
        return
    worker.log_event(TOPIC, {"job": worker.get_current_task(), "images": images})


class ImageCounts:
    """The numbers of images that workers have reported, by Dask's key of the job."""

    def __init__(self) -> None:
        self._by_job: dict[str, int] = {}

    def hear(self, event: tuple[float, Any]) -> None:
        """Takes a message of a worker; called in a thread of Dask's client."""
        _, message = event
        self._by_job[str(message["job"])] = int(message["images"])

    def of(self, job: str) -> int:
        """The images of a job that are done."""
        return self._by_job.get(job, 0)

    def forget(self, job: str) -> None:
        """Drops the count of a job that has ended."""
        self._by_job.pop(job, None)
