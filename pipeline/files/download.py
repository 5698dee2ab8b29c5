"""Files of the web that are used as they were published: fetched once, and checked whole.

A file is written beside its place, under a name of its own, and renamed when its SHA-256 is the
published one. What a cut connection leaves there is gone on with, by the next attempt or the next
command.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.console import Console
from pipeline.errors import WeightsError, writing
from pipeline.files import storage
from pipeline.files.checksum import checksum_of_bytes, digest
from pipeline.files.machine_cache import cache_folder

if TYPE_CHECKING:
    from http.client import HTTPResponse

_TIMEOUT_S = 30
_MB = 10**6
_NOTHING_LEFT = 416
"""What a server says that is asked for the bytes after the last one."""


class _ConnectionError(Exception):
    """The network, or what is at its other end."""


@dataclass(frozen=True)
class Published:
    """A file that somebody published for good.

    Attributes:
        url: Where.
        sha256: Of its bytes, 64 hex digits.
    """

    url: str
    sha256: str

    @property
    def name(self) -> str:
        """Its name."""
        return self.url.rpartition("/")[2]

    @property
    def path(self) -> Path:
        """Its place on this machine, there or not."""
        return cache_folder() / "weights" / self.name


def fetch(file: Published, console: Console, where: str) -> Path:
    """Downloads a file, unless it is there; tells the progress.

    Args:
        file: Which.
        console: Where to tell.
        where: The config key that asks for it, for errors.

    Returns:
        Its path; it holds what was published.

    Raises:
        WeightsError: It cannot be downloaded, or is not what was published.
        OSError: There is no room, say.
    """
    path = file.path
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path):
            if not path.is_file():  # another process may have fetched it meanwhile
                _download(file, console, where)
    if digest(path) != file.sha256:
        what = f"it is not the {file.name} that was published: its SHA-256 is another"
        raise WeightsError(what, where=str(path), fix="delete it, then run again")
    return path


def _download(file: Published, console: Console, where: str) -> None:
    part = file.path.with_name(f".{file.name}.part")
    by_hand = f"fetch {file.url} and put it at {file.path}"
    try:
        while not _is_all_there(file, part, console):
            pass
    except _ConnectionError as error:
        kept = f"run again, what came is kept; or {by_hand}"
        fix = kept if _size(part) else f"where there is a connection, {by_hand}"
        what = f"{file.name} cannot be downloaded: {error}"
        raise WeightsError(what, where=where, fix=fix) from error
    if (found := checksum_of_bytes(part)) != file.sha256:
        part.unlink()
        what = f"{file.url} gave SHA-256 {found[:12]}, where {file.sha256[:12]} was published"
        fix = f"run again, nothing of it is kept; or elsewhere {by_hand}"
        raise WeightsError(what, where=where, fix=fix)
    storage.move(part, file.path)


def _is_all_there(file: Published, part: Path, console: Console) -> bool:
    """Asks once for what is missing of a file, and whether it came.

    Raises:
        _ConnectionError: Nothing came.
    """
    from http.client import HTTPException  # a plan that downloads nothing does without them
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    before = _size(part)
    request = Request(file.url, headers={"Range": f"bytes={before}-"} if before else {})
    try:
        response: HTTPResponse = urlopen(request, timeout=_TIMEOUT_S)
    except HTTPError as error:
        error.close()
        if before and error.code == _NOTHING_LEFT:
            return True  # as far as the server knows
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
                told = stream.tell() // _MB
                stream.write(block)
                progress.advance(stream.tell() // _MB - told)
    if _size(part) < end and _size(part) <= before:
        raise _ConnectionError("the connection was cut")
    return _size(part) >= end


def _blocks(response: HTTPResponse) -> Iterator[bytes]:
    """What comes, until it is all or the connection is cut."""
    from http.client import HTTPException

    with suppress(OSError, HTTPException):
        while block := response.read1(_MB):
            yield block


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Waits for other processes that fetch the same file."""
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
