"""A call that is killed at any moment, and made again, ends in the bytes of an undisturbed one."""

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from pipeline.console import Console
from stages.predict.predict import Request, predict

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["stages.predict.writer", "stages.predict.decoding", __name__])
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.truncate", "open"}
_DEADLINE_S = 120


def _killed(request: Request, kill_at: int | None, sender: Any) -> None:
    """Predicts; just before the change of that number the process is killed, as by kill -9."""
    quiet, changes = os.open(os.devnull, os.O_WRONLY), 0
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal changes
        is_write = event in _CHANGES and (event != "open" or arguments[2] & os.O_CREAT)
        if is_write and str(arguments[0]).startswith(str(request.out)):
            changes += 1
            if changes == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    import sys

    sys.addaudithook(count)
    predict(request, Console())
    sender.send(changes)


def _call(request: Request, kill_at: int | None = None) -> int | None:
    """The number of changes; None if the call was killed."""
    receiver, sender = _FORKS.Pipe(duplex=False)
    process = _FORKS.Process(target=_killed, args=(request, kill_at, sender))
    process.start()
    sender.close()
    process.join(_DEADLINE_S)
    assert process.exitcode in (0, -signal.SIGKILL)
    return int(receiver.recv()) if process.exitcode == 0 else None


def _content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("step", [20, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_call_goes_on(step: int, photos: Path, model: Path, tmp_path: Path) -> None:
    def request(name: str) -> Request:
        return Request([str(photos)], model, tmp_path / name, ["masks", "json"], "cpu")

    changes = _call(request("whole"))
    assert changes is not None
    whole = _content(tmp_path / "whole")
    for kill_at in range(1, changes + 1, step):
        assert _call(request(f"out{kill_at}"), kill_at) is None
        assert _call(request(f"out{kill_at}")) is not None
        assert _content(tmp_path / f"out{kill_at}") == whole
