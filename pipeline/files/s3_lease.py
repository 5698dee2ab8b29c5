"""The lock of a run in an object store: an object that its owner writes again and again.

Every write is a compare-and-swap (`If-None-Match`, `If-Match`), so of two that would take the lock
one is refused. What is old is told by the store's own clock. An owner that cannot renew its lease
is stopped before it runs out, for then another may work on the run; a clock of its own sees to
that, since a store may let any request wait for ever.
"""

import os
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from threading import Event, Lock, Thread
from typing import Any

from pipeline.errors import StorageError
from pipeline.files import s3_objects

LEASE_S = 60.0
"""From its last renewal on a lock holds so long; then whoever comes may take it over."""
_RENEW_S = 15.0
_PATIENCE_S = 10.0
"""How long a request of a renewal may take, and who has lost the lease to stop."""


class _TakenError(Exception):
    """The object is no longer what was read or written last."""


@contextmanager
def leased(address: str, owner: str) -> Iterator[None]:
    """Holds the lock of an address while the block runs; one thread renews it, one watches that.

    Args:
        address: The lock's object; after the block it stays, empty.
        owner: Whom others are told of: process, host and start.

    Raises:
        StorageError: Another holds it, or, after the block was interrupted, has taken it over.
    """
    lease = _Lease(address, owner)
    lease.take()
    renewing = Thread(target=lease.keep, name="lease", daemon=True)
    renewing.start()
    Thread(target=lease.watch, name="lease watch", daemon=True).start()
    try:
        yield
    except KeyboardInterrupt:
        if lease.is_lost:
            raise _lost(address) from None
        raise
    finally:
        lease.ended.set()
        if not lease.is_lost:
            renewing.join()
            lease.leave()
    if lease.is_lost:
        raise _lost(address)


class _Lease:
    """A lock, held or to be held.

    Attributes:
        is_lost: Whether it can no longer be counted on.
        ended: To be set when it is no longer wanted.
    """

    def __init__(self, address: str, owner: str) -> None:
        self.is_lost = False
        self.ended = Event()
        self._bucket, self._key = s3_objects.split(address)
        self._address = address
        self._sign = f"{owner}\n{uuid.uuid4().hex}\n"
        self._tag = ""
        self._renewed = time.monotonic()
        self._losing = Lock()

    def take(self) -> None:
        """Takes a lock that is free, empty or out of date.

        Raises:
            StorageError: It is held.
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
        holder = self._read().partition("\n")[0]
        what = f"another command works on this run: {holder or 'it has just ended'}"
        fix = f"wait until it ends; if it was killed, its lock ends {LEASE_S:.0f} s after it"
        raise StorageError(what, where=self._address, fix=fix)

    def keep(self) -> None:
        """Writes the lock anew until it has `ended` or is lost."""
        while not self.ended.wait(_RENEW_S):
            try:
                self._swap(self._text(), {"IfMatch": self._tag})
            except _TakenError:
                self._lose()
            except (StorageError, OSError):  # maybe it answers next time
                if self._age() > LEASE_S - _RENEW_S - _PATIENCE_S:
                    self._lose()
            if self.is_lost:
                return

    def watch(self) -> None:
        """Takes the lock for lost when it gets too old, whatever its renewal waits for."""
        while not self.ended.wait(max(0.0, LEASE_S - _PATIENCE_S - self._age())):
            if self._age() >= LEASE_S - _PATIENCE_S:
                self._lose()
            if self.is_lost:
                return

    def _age(self) -> float:
        """Seconds since the last renewal that is known to have come to the store was sent."""
        return time.monotonic() - self._renewed

    def _lose(self) -> None:
        """Interrupts the main thread, once."""
        with self._losing:
            if not (self.is_lost or self.ended.is_set()):
                self.is_lost = True
                os.kill(os.getpid(), signal.SIGINT)

    def leave(self) -> None:
        """Empties the lock for others; if the store does not answer, its lease just runs out."""
        with suppress(_TakenError, StorageError, OSError):
            self._swap("", {"IfMatch": self._tag})

    def _text(self) -> str:
        """What the lock says; new each time, so that its tag, a digest of it, is."""
        return f"{self._sign}{uuid.uuid4().hex}\n"

    def _swap(self, text: str, condition: dict[str, str]) -> None:
        """Writes the object if the condition holds.

        Raises:
            _TakenError: It does not.
            StorageError: The store does not answer.
            OSError: It refuses, or takes too long.
        """
        for _ in range(2):
            sent = time.monotonic()
            try:
                answer = self._request("put_object", Body=text.encode(), **condition)
                self._tag, self._renewed = str(answer["ETag"]), sent
                return
            except (PermissionError, TimeoutError):
                raise
            except OSError as error:
                # Maybe the answer to an attempt got lost, and this one finds what that one wrote.
                if not self._read().startswith(self._sign):
                    raise _TakenError from error
                condition = {"IfMatch": str(self._request("head_object")["ETag"])}
        raise _TakenError

    def _read(self) -> str:
        try:
            options = {"max_concurrency": 1, "timeout": _PATIENCE_S}
            content: bytes = s3_objects.client().cat_file(self._address, **options)
        except FileNotFoundError:
            return ""
        return content.decode(errors="replace")

    def _request(self, method: str, **options: Any) -> Any:
        place = {"Bucket": self._bucket, "Key": self._key}
        return s3_objects.client().call_s3(method, **place, **options, timeout=_PATIENCE_S)


def _lost(address: str) -> StorageError:
    what = "the lock could not be renewed in time, or was taken over by another command"
    fix = "run again when the store answers; what is done stays done"
    return StorageError(what, where=address, fix=fix)
