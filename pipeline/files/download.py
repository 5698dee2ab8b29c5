"""Downloads of published files: fetched once, and checked by their SHA-256.

A download goes to a temporary file in the same folder, which is renamed once its SHA-256 is the
published one. After a lost connection, the next attempt or command resumes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import stopping
from pipeline.console import Console
from pipeline.errors import WeightsError, writing
from pipeline.files import file_lock, storage
from pipeline.files.checksum import checksum_of_bytes, digest
from pipeline.files.machine_cache import cache_folder

if TYPE_CHECKING:
    from http.client import HTTPResponse

_NO_LOCKS_FIX = "set MASKMILL_CACHE to a folder on a local disk"
_TIMEOUT_S = 30
_MB = 10**6
_RANGE_NOT_SATISFIABLE = 416
"""HTTP status for a range that begins after the last byte."""


class _ConnectionError(Exception):
    """A failure of the network or the server."""


@dataclass(frozen=True)
class Published:
    """A published file that never changes.

    Attributes:
        url: Its address.
        sha256: SHA-256 of its bytes, 64 hex digits.
    """

    url: str
    sha256: str

    @property
    def name(self) -> str:
        """The file name."""
        return self.url.rpartition("/")[2]

    @property
    def path(self) -> Path:
        """The path on this machine, whether the file exists or not."""
        return cache_folder() / "weights" / self.name


def fetch(file: Published, console: Console, where: str) -> Path:
    """Downloads a file unless it exists.

    Args:
        file: The file.
        console: Prints the progress.
        where: The config key that needs the file, for errors.

    Returns:
        The path of the file, whose SHA-256 is the published one.

    Raises:
        WeightsError: The file cannot be downloaded, or has another SHA-256.
        StorageError: The disk has no locks.
        OSError: There is no room, say.
    """
    path = file.path
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            if not path.is_file():  # another process may have fetched it meanwhile
                _download(file, console, where)
    if digest(path) != file.sha256:
        what = f"this is not the published {file.name}: its SHA-256 differs"
        raise WeightsError(what, where=str(path), fix="delete it, then run again")
    return path


def _download(file: Published, console: Console, where: str) -> None:
    part = file.path.with_name(f".{file.name}.part")
    by_hand = f"fetch {file.url} and put it at {file.path}"
    try:
        while not _is_complete(file, part, console):
            pass
    except _ConnectionError as error:
        kept = f"run again to resume the download; or {by_hand}"
        fix = kept if _size(part) else f"on a machine with a connection, {by_hand}"
        what = f"{file.name} cannot be downloaded: {error}"
        raise WeightsError(what, where=where, fix=fix) from error
    if (found := checksum_of_bytes(part)) != file.sha256:
        part.unlink()
        what = f"{file.url} has SHA-256 {found[:12]}, not the published {file.sha256[:12]}"
        fix = f"run again to download it from the start; or {by_hand}"
        raise WeightsError(what, where=where, fix=fix)
    storage.move(part, file.path)


def _is_complete(file: Published, part: Path, console: Console) -> bool:
    """Makes one request for the rest of a file; returns whether the file is complete.

    Raises:
        _ConnectionError: The request brought nothing.
    """
    from http.client import HTTPException  # slow to import, and only downloads need them
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    before = _size(part)
    request = Request(file.url, headers={"Range": f"bytes={before}-"} if before else {})
    try:
        response: HTTPResponse = urlopen(request, timeout=_TIMEOUT_S)
    except HTTPError as error:
        error.close()
        if before and error.code == _RANGE_NOT_SATISFIABLE:
            return True  # the server has no more bytes
        raise _ConnectionError(f"the server says {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise _ConnectionError(" ".join(str(reason).split())) from error
    with response:
        is_rest = response.headers.get("Content-Range", "").startswith(f"bytes {before}-")
        start = before if is_rest else 0
        end = start + int(response.headers.get("Content-Length", 0))
        with (
            console.progress(f"download {file.name}", end // _MB, "MB") as progress,
            writing(part),
            part.open("ab" if is_rest else "wb") as stream,
        ):
            progress.advance(start // _MB)
            for block in _blocks(response):
                stopping.check()
                shown = stream.tell() // _MB
                stream.write(block)
                progress.advance(stream.tell() // _MB - shown)
    if _size(part) < end and _size(part) <= before:
        raise _ConnectionError("the connection was lost")
    return _size(part) >= end


def _blocks(response: HTTPResponse) -> Iterator[bytes]:
    """The bytes of a response, up to its end or the loss of the connection."""
    from http.client import HTTPException

    with suppress(OSError, HTTPException):
        while block := response.read1(_MB):
            yield block


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds the lock of a download; waits for other processes that fetch the same file."""
    locked = path.with_name(f".{path.name}.lock")
    with locked.open("w") as file:
        file_lock.lock(file, locked, _NO_LOCKS_FIX, wait=True)
        yield


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
