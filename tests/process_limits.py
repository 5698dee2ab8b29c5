"""Limits on what this process may take, as a machine without room sets them."""

import ctypes
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_M_MMAP_THRESHOLD = -3
"""Of glibc's malloc.h."""


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
