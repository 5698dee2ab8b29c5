"""The lock of a run in an object store: an object that its owner writes again and again.

Every write is a compare-and-swap (`If-None-Match`, `If-Match`), so of two that would take the lock
one is refused. What is old is told by the store's own clock. An owner that cannot renew its lease
is stopped before it runs out, for then another may work on the run.
"""

import os
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from threading import Event, Thread
from typing import Any

from pipeline import objects
from pipeline.errors import StorageError

LEASE_S = 60.0
"""From its last renewal on a lock holds so long; then whoever comes may take it over."""
_RENEW_S = LEASE_S / 4


class _TakenError(Exception):
    """The object is no longer what was read or written last."""


@contextmanager
def leased(address: str, owner: str) -> Iterator[None]:
    """Holds the lock of an address while the block runs, and renews it in a thread.

    Args:
        address: The lock's object; after the block it stays, empty.
        owner: Whom others are told of: process, host and start.

    Raises:
        StorageError: Another holds it, or, after the block was interrupted, has taken it over.
    """
    lease = _Lease(address, owner, _taken(address, owner))
    thread = Thread(target=lease.renew, name="lease", daemon=True)
    thread.start()
    try:
        yield
    except KeyboardInterrupt:
        if lease.is_lost:
            raise _lost(address) from None
        raise
    finally:
        lease.ended.set()
        thread.join()
        if not lease.is_lost:
            with suppress(_TakenError):
                _swap(address, "", lease.tag)
    if lease.is_lost:
        raise _lost(address)


@dataclass
class _Lease:
    """A lock that is held."""

    address: str
    owner: str
    tag: str
    is_lost: bool = False

    def __post_init__(self) -> None:
        self.ended = Event()

    def renew(self) -> None:
        """Writes the lock anew until the block ends; interrupts the main thread if it is lost."""
        renewed = time.monotonic()
        while not self.ended.wait(_RENEW_S):
            start = time.monotonic()
            try:
                self.tag = _swap(self.address, _text(self.owner), self.tag)
                renewed = start
            except _TakenError:
                self.is_lost = True
            except (StorageError, OSError):  # maybe it answers next time
                self.is_lost = time.monotonic() - renewed > LEASE_S - 2 * _RENEW_S
            if self.is_lost:
                os.kill(os.getpid(), signal.SIGINT)
                return


def _taken(address: str, owner: str) -> str:
    """Takes a lock that is free, empty or out of date; its tag."""
    try:
        return _swap(address, _text(owner), None)
    except _TakenError:
        pass
    found = _request("head_object", address)
    now = parsedate_to_datetime(found["ResponseMetadata"]["HTTPHeaders"]["date"])
    age = (now - found["LastModified"]).total_seconds()
    if not found["ContentLength"] or age > LEASE_S:
        with suppress(_TakenError):
            return _swap(address, _text(owner), found["ETag"])
    holder = objects.read(address, None)[0].decode(errors="replace").partition("\n")[0]
    what = f"another command works on this run: {holder or 'it has just ended'}"
    fix = f"wait until it ends; if it was killed, its lock ends {LEASE_S:.0f} s after it"
    raise StorageError(what, where=address, fix=fix)


def _text(owner: str) -> str:
    """What the lock says; new each time, so that its tag (a digest) is."""
    return f"{owner}\n{uuid.uuid4().hex}\n"


def _swap(address: str, text: str, tag: str | None) -> str:
    """Writes the object if its tag is still this one, without one if there is none; the new tag."""
    condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
    try:
        answer = _request("put_object", address, Body=text.encode(), **condition)
    except PermissionError:
        raise
    except OSError as error:
        # Maybe the answer to a first attempt got lost, and this is what the client's second found.
        with suppress(FileNotFoundError):
            if objects.read(address, None)[0] == text.encode():
                return str(_request("head_object", address)["ETag"])
        raise _TakenError from error
    return str(answer["ETag"])


def _request(method: str, address: str, **options: Any) -> Any:
    bucket, key = objects.split(address)
    return objects.client().call_s3(method, Bucket=bucket, Key=key, **options)


def _lost(address: str) -> StorageError:
    what = "the lock could not be renewed in time, or was taken over by another command"
    fix = "run again when the store answers; what is done stays done"
    return StorageError(what, where=address, fix=fix)
