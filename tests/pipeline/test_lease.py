"""The lock of a run in an object store: one holder, told to others, taken over when it is old."""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

import pytest

from pipeline.errors import StorageError
from pipeline.files import locations, s3_lease, s3_objects, storage
from pipeline.files.run_lock import locked
from tests.s3_server import Fault, Proxy, aged, until

DEADLINE_S = 30


@pytest.fixture
def run(bucket: str) -> Path:
    return locations.location(f"{bucket}/manifests/tiny")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_lease, "_RENEW_S", 0.05)


def test_a_second_run_is_reported_of_the_first_and_may_start_when_it_ends(run: Path) -> None:
    with locked(run):
        with pytest.raises(StorageError) as error, locked(run):
            pytest.fail("two hold it")
        assert f"another command is working on this run: process {os.getpid()} on " in str(
            error.value
        )
        assert "started 20" in str(error.value)
    with locked(run):
        pass


def test_a_lock_is_taken_over_when_its_lease_is_out(run: Path) -> None:
    held = str(run / ".lock")
    storage.write_bytes(run / ".lock", b"process 7 on elsewhere, started yesterday\nabc\n")
    with pytest.raises(StorageError, match="process 7 on elsewhere"), locked(run):
        pytest.fail("it is held")
    aged(held, s3_lease.LEASE_S + 1)
    with locked(run):
        assert f"process {os.getpid()} on" in (run / ".lock").read_text()


@pytest.mark.parametrize("is_there", [False, True])
def test_of_many_that_come_at_once_one_gets_it(run: Path, is_there: bool) -> None:
    address = str(run / ".lock")
    if is_there:
        storage.write_bytes(run / ".lock", b"process 7 on elsewhere\nabc\n")
        aged(address, s3_lease.LEASE_S + 1)
    gate = Barrier(6)

    def take(number: int) -> bool:
        gate.wait()
        try:
            s3_lease._Lease(address, f"process {number}").take()
        except StorageError:
            return False
        return True

    with ThreadPoolExecutor(6) as threads:
        assert sum(threads.map(take, range(6))) == 1


@pytest.mark.usefixtures("quick")
def test_a_lock_is_renewed_while_the_command_runs(run: Path, s3: Proxy) -> None:
    storage.write_bytes(run / ".lock", b"")
    s3.requests.clear()
    with locked(run):
        aged(str(run / ".lock"), s3_lease.LEASE_S + 1)
        s3.faults.append(Fault("500", "PUT .*lock"))
        until(lambda: s3.hits == 1)
        until(lambda: sum("PUT" in request for request in s3.requests) > 5)
        with pytest.raises(StorageError, match="another command"), locked(run):
            pytest.fail("it was renewed")


@pytest.fixture
def interruptible() -> Iterator[None]:
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


def work(run: Path, trouble: Callable[[], object]) -> None:
    """Holds the lock, through trouble."""
    with locked(run):
        trouble()
        Event().wait(DEADLINE_S)
        pytest.fail("it goes on")


@pytest.mark.usefixtures("quick", "interruptible")
def test_who_loses_the_lock_is_stopped(run: Path) -> None:
    other = b"process 7 on elsewhere\nabc\n"
    with pytest.raises(StorageError, match="taken over by another"):
        work(run, lambda: storage.write_bytes(run / ".lock", other))
    assert (run / ".lock").read_bytes() == other


@pytest.mark.usefixtures("quick", "interruptible")
@pytest.mark.parametrize("hanging", ["GET .*lock", "HEAD .*lock", "PUT .*lock"])
def test_a_store_that_hangs_cannot_hold_the_lock_over_its_lease(
    hanging: str, run: Path, s3: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than the test waits; the first renewal is done, but its answer gets lost."""
    monkeypatch.setattr(s3_lease, "LEASE_S", 12.0)
    storage.write_bytes(run / ".lock", b"")
    faults = [Fault("lost", "PUT .*lock"), Fault("slow", hanging, times=99, seconds=9999)]
    with pytest.raises(StorageError, match="could not be renewed in time"):
        work(run, lambda: s3.faults.extend(faults))
    assert s3.hits >= 2


def test_a_renewal_whose_answer_got_lost_is_none_of_another(run: Path, s3: Proxy) -> None:
    """The client's own second attempt finds what the first one wrote."""
    s3.faults.append(Fault("lost", "PUT .*lock"))
    with locked(run):
        assert s3.hits == 1


def age_own_lock(seconds: float) -> None:
    """As if this process had been paused for so long: its threads have not run."""
    (lease,) = s3_lease._held
    lease._renewed -= seconds


@pytest.mark.parametrize("how", ["write", "replace", "remove", "move"])
def test_after_a_pause_nothing_is_written_any_more(how: str, run: Path) -> None:
    path = run / "images/part-00000.parquet"
    storage.write_bytes(path, b"of the other command")

    def change() -> None:
        age_own_lock(s3_lease.LEASE_S)
        if how == "write":
            storage.write_bytes(path, b"late")
        elif how == "replace":
            with storage.replacing(path) as temporary:
                temporary.write_bytes(b"late")
        elif how == "remove":
            storage.remove(path)
        else:
            storage.move(path, run / "elsewhere")

    with pytest.raises(StorageError, match="taken over by another command"), locked(run):
        change()
    assert storage.read_bytes(path) == b"of the other command"
    assert not (run / "elsewhere").exists()


def test_a_worker_writes_only_while_the_command_that_sent_it_holds_the_lock(run: Path) -> None:
    """In a process of its own, which holds no lock and has only what travelled to it."""
    path = run / "images/part-00000.parquet"
    with locked(run):
        locks = s3_lease.lendable()
    storage.write_bytes(run / ".lock", "".join(locks[0][1]).encode())
    with s3_lease.lent(locks):
        storage.write_bytes(path, b"in time")
        storage.write_bytes(run / ".lock", b"process 7 on elsewhere\nabc\n")
        changes: list[Callable[[], None]] = [
            lambda: storage.write_bytes(path, b"late"),
            lambda: storage.remove(path),
            lambda: storage.move(path, run / "elsewhere"),
        ]
        for change in changes:
            with pytest.raises(StorageError, match="taken over by another command"):
                change()
    assert storage.read_bytes(path) == b"in time"
    assert not s3_lease.is_any_held()


@pytest.mark.parametrize("is_there", [False, True])
def test_a_write_on_its_way_does_not_replace_what_another_wrote(
    is_there: bool, run: Path, s3: Proxy
) -> None:
    """It is sent while the lock is held, and arrives when another command has it."""
    path = run / "images/part-00000.parquet"
    if is_there:
        storage.write_bytes(path, b"before")
    s3.faults.append(Fault("slow", "PUT .*part-00000", seconds=1.5))

    def write() -> None:
        with locked(run):
            storage.write_bytes(path, b"late")

    with ThreadPoolExecutor(1) as thread:
        late = thread.submit(write)
        until(lambda: s3.hits == 1)
        s3_objects.client().pipe_file(str(path), b"of the other command")
        with pytest.raises(StorageError, match="taken over by another command"):
            late.result()
    assert storage.read_bytes(path) == b"of the other command"


def test_an_answer_that_was_lost_is_no_other_command(run: Path, s3: Proxy) -> None:
    path = run / "images/part-00000.parquet"
    with locked(run):
        s3.faults.append(Fault("lost", "PUT .*part-00000"))
        storage.write_bytes(path, b"once")
        storage.write_bytes(path, b"twice")
    assert storage.read_bytes(path) == b"twice"
