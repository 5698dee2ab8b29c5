import errno
import fcntl
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.console import Console
from pipeline.errors import StorageError
from pipeline.files.download import Published, fetch
from pipeline.files.run_lock import locked

HOLDER = """
import sys
from pathlib import Path
from pipeline.files.run_lock import locked

with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock until its stdin closes."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    pipe = subprocess.PIPE
    holder = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    return holder


def test_a_second_run_is_refused_with_the_name_of_the_first(tmp_path: Path) -> None:
    with hold(tmp_path) as holder:
        with pytest.raises(StorageError) as error, locked(tmp_path):
            pass
        holder.communicate()
    assert re.fullmatch(
        rf"{re.escape(str(tmp_path))}: another command is working on this run: "
        rf"process {holder.pid} on \S+, started \d{{4}}-\d\d-\d\dT\S+; wait until it ends",
        str(error.value),
    )
    with locked(tmp_path):  # it ended
        pass


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    with hold(tmp_path) as holder:
        os.kill(holder.pid, signal.SIGKILL)
    assert f"process {holder.pid} " in (tmp_path / ".lock").read_text()
    with locked(tmp_path):
        assert f"process {os.getpid()} " in (tmp_path / ".lock").read_text()


def test_an_error_frees_the_lock_and_other_runs_are_not_held_up(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"), locked(tmp_path / "a"):
        raise RuntimeError("stop")
    with locked(tmp_path / "a"), locked(tmp_path / "b"):
        pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_named(
    code: int, tmp_path: Path, machine_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    what = rf"this disk has no file locks \({os.strerror(code)}\), which keep two commands apart; "
    with pytest.raises(StorageError, match=rf"{tmp_path}/.lock: {what}set `workspace` to a local"):
        locked(tmp_path).__enter__()
    published = Published("http://localhost:9/sam.pth", "0" * 64)
    with pytest.raises(StorageError, match=rf"sam.pth.lock: {what}set MASKMILL_CACHE to a folder"):
        fetch(published, Console(), "propose.model")
