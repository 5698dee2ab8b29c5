"""Calls in processes of their own that are killed just before a change to a folder of results."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_FORKS = multiprocessing.get_context("forkserver")
_PRELOADED = ["stages.predict.writer", "stages.predict.decoding", "stages.export.run_labels"]
_FORKS.set_forkserver_preload([*_PRELOADED, "stages.export.shapes", __name__])
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.truncate", "open"}
_DEADLINE_S = 120


def call(work: Callable[[Path], None], out: Path, kill_at: int | None = None) -> int | None:
    """Runs `work(out)`; just before the change of that number below `out` it is killed.

    Args:
        work: Picklable.
        out: The folder of results.
        kill_at: Number of the change, from 1; None: it is not killed.

    Returns:
        The number of changes; None if the call was killed.
    """
    receiver, sender = _FORKS.Pipe(duplex=False)
    process = _FORKS.Process(target=_work, args=(work, out, kill_at, sender))
    process.start()
    sender.close()
    process.join(_DEADLINE_S)
    assert process.exitcode in (0, -signal.SIGKILL)
    return int(receiver.recv()) if process.exitcode == 0 else None


def content(folder: Path) -> dict[str, bytes]:
    """The bytes of all files below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _work(work: Callable[[Path], None], out: Path, kill_at: int | None, sender: Any) -> None:
    quiet, changes = os.open(os.devnull, os.O_WRONLY), 0
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal changes
        is_write = event in _CHANGES and (event != "open" or arguments[2] & os.O_CREAT)
        if is_write and str(arguments[0]).startswith(str(out)):
            changes += 1
            if changes == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    work(out)
    sender.send(changes)
