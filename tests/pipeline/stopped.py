"""A command that works until it is stopped: python -m tests.pipeline.stopped HOW [deaf]."""

import hashlib
import sys
from threading import Event

from pipeline import stopping
from pipeline.config.config import ClusterConfig
from pipeline.engine.cluster import Job, run_jobs

CLUSTERS = {"thread": ClusterConfig(), "processes": ClusterConfig(workers=2)}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def work(number: int, *, deaf: bool) -> int:
    """The first job of a worker ends when it is asked to stop, unless it is deaf."""
    say(f"job {number}")
    while True:
        if not deaf:
            stopping.check()
        Event().wait(0.01)


def deaf_work(number: int) -> int:
    return work(number, deaf=True)


def good_work(number: int) -> int:
    return work(number, deaf=False)


def main(how: str, *deaf: str) -> None:
    """Works on a cluster, or inside one call of a C function."""
    with stopping.on_signals(say):
        if how == "inside C":
            say("job 0")
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
        jobs = (Job(f"job {number}", number) for number in range(20))
        list(run_jobs(CLUSTERS[how], deaf_work if deaf else good_work, jobs))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except stopping.Stopped as stopped:
        sys.exit(stopped.exit_code)
