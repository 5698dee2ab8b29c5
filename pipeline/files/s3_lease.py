"""The lock of a run in an object store: an object that its owner rewrites periodically.

Every write is a compare-and-swap (`If-None-Match`, `If-Match`), so only one of two processes gets
the lock. The age of a lock is measured by the clock of the store. An owner that cannot renew its
lease is stopped before the lease ends, as another process may then work on the run. A local clock
ensures this, since a store may never answer a request.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from threading import Event, Lock, Thread
from typing import Any

from pipeline import stopping
from pipeline.errors import StorageError
from pipeline.files import s3_objects

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Linux stops the monotonic clock in its sleep; that of macOS goes on."""
LEASE_S = 60.0
"""Seconds that a lock lasts after its last renewal; then another process may take it over."""
_RENEW_S = 15.0
_PATIENCE_S = 10.0
"""Seconds for one request of a renewal, and for stopping after the loss of the lease."""
_held: list[_Lease] = []
"""The locks of this process."""
_lent: list[tuple[str, str]] = []
"""Address and signature of the locks that another process holds and that this one works under."""


def _now() -> float:
    """Seconds of a clock that nobody sets, and that goes on while the machine sleeps."""
    return time.clock_gettime(_CLOCK)


class _TakenError(Exception):
    """Another process changed the object."""


@contextmanager
def leased(address: str, owner: str) -> Iterator[None]:
    """Holds the lock of an address while the block runs; one thread renews it, one checks its age.

    Args:
        address: The object of the lock; after the block it stays, empty.
        owner: Description of this process for others: process id, host and start time.

    Raises:
        StorageError: Another process holds the lock, or has taken it over.
    """
    lease = _Lease(address, owner)
    lease.take()
    _held.append(lease)
    renewing = Thread(target=lease.keep, name="lease", daemon=True)
    renewing.start()
    Thread(target=lease.watch, name="lease watch", daemon=True).start()
    try:
        yield
    except (KeyboardInterrupt, stopping.Stopped):
        if lease.is_lost:
            raise lost(address) from None
        raise
    finally:
        _held.remove(lease)
        lease.ended.set()
        if lease.is_lost:
            stopping.forget()
        else:
            renewing.join()
            lease.leave()
    if lease.is_lost:
        raise lost(address)


def lendable() -> tuple[tuple[str, str], ...]:
    """The locks of this process, in a form that may travel to its workers; see `lent`."""
    return tuple((lease.address, lease.signature) for lease in _held)


@contextmanager
def lent(locks: Sequence[tuple[str, str]]) -> Iterator[None]:
    """Does the work of another process, and writes only while that one holds its locks.

    Args:
        locks: What `lendable` gave there.
    """
    # A thread of the holder itself needs none: it can ask how old the lock is.
    foreign = [] if _held else [*locks]
    _lent.extend(foreign)
    try:
        yield
    finally:
        for lock in foreign:
            _lent.remove(lock)


def is_any_held() -> bool:
    """Whether this process works under the lock of a run in an object store, lost or not."""
    return bool(_held or _lent)


def check_held() -> None:
    """Refuses a write by a process that works under a lock no more.

    Raises:
        StorageError: The lock is so old that another process may have taken it over; or, if it is
            lent, another one has.
    """
    for lease in _held:
        if lease.is_lost or lease.age() >= LEASE_S - _PATIENCE_S:
            raise lost(lease.address)
    for address, signature in _lent:
        if not _content(address).startswith(signature):
            raise lost(address)


class _Lease:
    """A lock that this process holds or wants.

    Attributes:
        address: The object of the lock.
        signature: What the object begins with while this process holds the lock.
        is_lost: Whether the lock may belong to another process now.
        ended: Set by the caller when the lock is no longer needed.
    """

    def __init__(self, address: str, owner: str) -> None:
        self.is_lost = False
        self.ended = Event()
        self._bucket, self._key = s3_objects.split(address)
        self.address = address
        self.signature = f"{owner}\n{uuid.uuid4().hex}\n"
        self._tag = ""
        self._renewed = _now()
        self._losing = Lock()

    def take(self) -> None:
        """Takes a lock that is free, empty or expired.

        Raises:
            StorageError: Another process holds the lock.
        """
        with suppress(_TakenError):
            self._swap(self._text(), {"IfNoneMatch": "*"})
            return
        found = self._request("head_object")
        now = parsedate_to_datetime(found["ResponseMetadata"]["HTTPHeaders"]["date"])
        age = (now - found["LastModified"]).total_seconds()
        if not found["ContentLength"] or age > LEASE_S:
            with suppress(_TakenError):
                self._swap(self._text(), {"IfMatch": found["ETag"]})
                return
        holder = _content(self.address).partition("\n")[0]
        what = f"another command is working on this run: {holder or 'it has just ended'}"
        fix = f"wait until it ends; if it was killed, its lock ends {LEASE_S:.0f} s after it"
        raise StorageError(what, where=self.address, fix=fix)

    def keep(self) -> None:
        """Renews the lock until it has `ended` or is lost."""
        while not self.ended.wait(_RENEW_S):
            try:
                self._swap(self._text(), {"IfMatch": self._tag})
            except _TakenError:
                self._lose()
            except (StorageError, OSError):  # the next renewal may succeed
                if self.age() > LEASE_S - _RENEW_S - _PATIENCE_S:
                    self._lose()
            if self.is_lost:
                return

    def watch(self) -> None:
        """Gives the lock up when it gets too old, even while a renewal is waiting for the store."""
        while not self.ended.wait(max(0.0, LEASE_S - _PATIENCE_S - self.age())):
            if self.age() >= LEASE_S - _PATIENCE_S:
                self._lose()
            if self.is_lost:
                return

    def age(self) -> float:
        """Seconds since the last successful renewal was sent."""
        return _now() - self._renewed

    def _lose(self) -> None:
        """Marks the lock as lost and interrupts the main thread, once."""
        with self._losing:
            if not (self.is_lost or self.ended.is_set()):
                self.is_lost = True
                stopping.abandon()

    def leave(self) -> None:
        """Empties the lock for others; if the store does not answer, the lease expires."""
        with suppress(_TakenError, StorageError, OSError):
            self._swap("", {"IfMatch": self._tag})

    def _text(self) -> str:
        """New content of the lock; it differs each time, and so does its tag, a digest of it."""
        return f"{self.signature}{uuid.uuid4().hex}\n"

    def _swap(self, text: str, condition: dict[str, str]) -> None:
        """Writes the object if the condition holds.

        Raises:
            _TakenError: The condition does not hold.
            StorageError: The store does not answer.
            OSError: The store refuses, or takes too long.
        """
        for _ in range(2):
            sent = _now()
            try:
                answer = self._request("put_object", Body=text.encode(), **condition)
                self._tag, self._renewed = str(answer["ETag"]), sent
                return
            except (PermissionError, TimeoutError):
                raise
            except OSError as error:
                # The answer to an earlier attempt may be lost, and this one found its write.
                if not _content(self.address).startswith(self.signature):
                    raise _TakenError from error
                condition = {"IfMatch": str(self._request("head_object")["ETag"])}
        raise _TakenError

    def _request(self, method: str, **options: Any) -> Any:
        place = {"Bucket": self._bucket, "Key": self._key}
        return s3_objects.client().call_s3(method, **place, **options, timeout=_PATIENCE_S)


def _content(address: str) -> str:
    """The content of a lock; empty if there is none."""
    try:
        options = {"max_concurrency": 1, "timeout": _PATIENCE_S}
        content: bytes = s3_objects.client().cat_file(address, **options)
    except FileNotFoundError:
        return ""
    return content.decode(errors="replace")


def lost(address: str) -> StorageError:
    """The error of a process whose lock may belong to another one."""
    what = "the lock could not be renewed in time, or was taken over by another command"
    fix = "run again when the store answers; what is done stays done"
    return StorageError(what, where=address, fix=fix)
