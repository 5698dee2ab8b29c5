import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from pipeline import stopping
from pipeline.config.config import ClusterConfig
from pipeline.engine.cluster import Job, run_jobs
from pipeline.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:Creating scratch directories")
Start = Callable[..., subprocess.Popen[str]]
SLOW = pytest.param("processes", marks=pytest.mark.slow)


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a command in a group of its own, as a terminal does."""
    started = []

    def popen(*command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            env={**os.environ, "PYTHONPATH": os.getcwd()},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        return process

    yield popen
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def signalled(process: subprocess.Popen[str], *signals: tuple[str, signal.Signals]) -> list[str]:
    """All lines of stderr; each signal goes to the group after a line that begins with its text.

    Stderr ends when no process of the group has it open: none is left behind.
    """
    assert process.stderr is not None
    waiting, lines = [*signals], []
    for line in process.stderr:
        lines.append(line.rstrip())
        if waiting and line.startswith(waiting[0][0]):
            os.killpg(process.pid, waiting.pop(0)[1])
    process.wait()
    assert not waiting, lines
    return lines


def without_jobs(lines: Sequence[str]) -> list[str]:
    return [line for line in lines if not line.startswith("job ")]


@pytest.mark.parametrize("how", ["thread", SLOW])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_ends_the_work_after_the_batch(
    how: str, number: signal.Signals, code: int, start: Start
) -> None:
    process = start("tests.pipeline.stopped", how)
    lines = signalled(process, ("job ", number))
    assert without_jobs(lines) == [stopping.NOTICE]
    assert process.returncode == code


@pytest.mark.parametrize("how", ["thread", "inside C", SLOW])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_second_signal_ends_the_process_at_once(
    how: str, number: signal.Signals, code: int, start: Start
) -> None:
    process = start("tests.pipeline.stopped", how, "deaf")
    lines = signalled(process, ("job ", number), (stopping.NOTICE, number))
    assert without_jobs(lines) == [stopping.NOTICE]
    assert process.returncode == code


def test_an_error_lets_other_work_of_the_cluster_end_after_its_batch() -> None:
    """It used to be waited for 30 seconds."""
    from tests.pipeline.stopped import good_work

    def work(number: int) -> int:
        if number == 0:
            raise DataError("it is gone", where="image 0", fix="put it back")
        return good_work(number)

    jobs = (Job(str(number), number) for number in range(3))
    with pytest.raises(DataError, match="it is gone"):
        list(run_jobs(ClusterConfig(), work, jobs))
    assert not stopping.asked()


def test_a_caller_that_goes_away_ends_the_work() -> None:
    from tests.pipeline.stopped import good_work

    def work(number: int) -> int:
        return 0 if number == 0 else good_work(number)

    results = run_jobs(ClusterConfig(), work, (Job(str(number), number) for number in range(3)))
    assert next(results)[1] == 0
    results.close()


def test_handlers_are_as_before_in_the_end() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def work() -> None:
        with stopping.on_signals(lambda _: None):
            os.kill(os.getpid(), signal.SIGTERM)
            while True:
                stopping.check()

    with pytest.raises(stopping.Stopped) as stopped:
        work()
    assert stopped.value.exit_code == 143
    assert not stopping.asked()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_an_abandoned_run_is_interrupted_without_a_notice() -> None:
    notices: list[str] = []

    def work() -> None:
        with stopping.on_signals(notices.append):
            stopping.abandon()
            while True:
                assert stopping.asked()

    with pytest.raises(KeyboardInterrupt):
        work()
    assert notices == []
    assert not stopping.asked()


def test_names_in_other_letters_reach_a_terminal_that_knows_none_of_them(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "zażółć"
    for stdout_name in ("ascii", "latin-1"):
        done = subprocess.run(
            [sys.executable, "-m", "maskmill", "status", "--config", str(folder / "猫.yaml")],
            env={**os.environ, "PYTHONPATH": os.getcwd(), "PYTHONIOENCODING": stdout_name},
            capture_output=True,
        )
        assert done.returncode == 1
        assert b"\\u732b.yaml: cannot read the file" in done.stderr
        assert b"Traceback" not in done.stderr


def test_a_full_disk_below_stdout_is_one_line(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "maskmill", "status"],
            env={**os.environ, "PYTHONPATH": os.getcwd()},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: disk: No space left on device; ")
    assert done.stderr.count("\n") == 1
