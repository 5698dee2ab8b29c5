"""Limits on what this process may take, as a machine without room sets them."""

import ctypes
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import ParamSpec

from tests.repository import ROOT

P = ParamSpec("P")
_INSIDE = "MASKMILL_TEST_IN_NEW_PROCESS"

_M_MMAP_THRESHOLD = -3
"""Of glibc's malloc.h."""


def in_new_process(test: Callable[P, None]) -> Callable[P, None]:
    """Runs a test in a process of its own.

    A thread that has no memory to start with would block a process of many tests for ever.
    """

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        if _INSIDE in os.environ:
            test(*args, **kwargs)
            return
        name = os.environ["PYTEST_CURRENT_TEST"].partition(" ")[0]
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", name]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**env, _INSIDE: "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout

    return run


@contextmanager
def memory_limited_to(spare: int) -> Iterator[None]:
    """Lets this process have only so many bytes more than it has, as `ulimit -v` does.

    Large blocks are mapped from now on, not taken from what earlier tests have freed.
    """
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 2**16)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    with _limited(resource.RLIMIT_AS, pages * resource.getpagesize() + spare):
        yield


@contextmanager
def no_more_open_files() -> Iterator[None]:
    """Lets this process open no file."""
    lowest_free = os.dup(0)
    os.close(lowest_free)
    with _limited(resource.RLIMIT_NOFILE, lowest_free):
        yield


@contextmanager
def _limited(kind: int, limit: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))
