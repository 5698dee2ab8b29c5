"""Objects by their addresses s3://bucket/key: names, listings, stamps, ranges of bytes.

Only `storage`, `s3_lease` and TensorStore's readers use this module; other code uses `storage`.
"""

import errno
import os
import posixpath
from collections.abc import Iterator
from functools import cache
from io import RawIOBase
from threading import Lock
from typing import Any

from pipeline.errors import StorageError

_SCHEME = "s3://"
_RETRIES = {"max_retries": 6, "initial_delay": "200ms", "max_delay": "5s"}
"""For TensorStore, whose default of 32 retries takes half an hour when a store is down."""

_UNANSWERED = ("ABORTED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "PERMISSION_DENIED")
"""Beginnings of TensorStore's messages about a failing store."""


def is_address(text: str) -> bool:
    """Whether a text is the address of an object."""
    return text.startswith(_SCHEME)


def split(address: str) -> tuple[str, str]:
    """Bucket and key of an address."""
    bucket, _, key = address.removeprefix(_SCHEME).partition("/")
    return bucket, key


def normalized(address: str) -> str:
    """An address without `.`, `..` and empty steps; `..` does not lead out of the bucket."""
    bucket, key = split(address)
    return f"{_SCHEME}{bucket}{posixpath.normpath('/' + key.lstrip('/')).rstrip('/')}"


def client() -> Any:
    """The client of this process; for its errors see `pipeline.files.s3_client`."""
    return _client_of(os.getpid())


@cache
def register() -> None:
    """Makes fsspec, and so `UPath`, use our client for s3:// addresses."""
    import fsspec  # slow to import, and only such addresses need it

    fsspec.register_implementation("s3", "pipeline.files.s3_client.ObjectStore", clobber=True)


@cache
def _client_of(process: int) -> Any:
    import fsspec

    register()
    return fsspec.filesystem("s3", skip_instance_cache=True)  # fsspec keeps one for each thread


def read(address: str, most: int | None) -> tuple[bytes, int]:
    """An object's bytes, or the first ones where there are more than `most`, and its size."""
    if most is None:
        content: bytes = client().cat_file(address, max_concurrency=1)  # a single request
        return content, len(content)
    content = read_range(address, 0, most + 1)
    return content, len(content) if len(content) <= most else client().info(address)["size"]


def read_range(address: str, start: int, size: int) -> bytes:
    """A range of an object's bytes, shorter at the end of the object."""
    try:
        content: bytes = client().cat_file(address, start=start, end=start + size)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return b""  # the range begins after the end
    return content


def listed(folder: str) -> Iterator[tuple[str, int, str]]:
    """Address, size and ETag of every object below a folder; a request lists a thousand."""
    yield from _pages(folder, {})


def stamps_in(folder: str) -> dict[str, str]:
    """Size and ETag of the objects in a folder, by name."""
    page = _pages(folder, {"Delimiter": "/"})
    return {address.rpartition("/")[2]: f"{size}:{tag}" for address, size, tag in page}


class Stamps:
    """A cache of sizes and ETags, filled by listings: one request for a thousand objects.

    Stamps stay the same until the next listing; a change in between is found by the next run.
    """

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, str]] = {}
        self._lock = Lock()

    def files(self, folder: str) -> Iterator[str]:
        """Lists all objects below a folder, and caches their stamps."""
        self.forget(folder)
        found: dict[str, dict[str, str]] = {}
        for address, size, tag in listed(folder):
            parent, _, name = address.rpartition("/")
            found.setdefault(parent, {})[name] = f"{size}:{tag}"
            if name:
                yield address
        with self._lock:
            self._folders |= found

    def of(self, address: str) -> str | None:
        """The stamp of an object; None for a missing one."""
        parent, _, name = address.rpartition("/")
        with self._lock:
            if parent not in self._folders:
                self._folders[parent] = stamps_in(parent)
            return self._folders[parent].get(name)

    def forget(self, folder: str) -> None:
        """Drops the cached stamps in a folder, and below."""
        with self._lock:
            for known in [k for k in self._folders if k == folder or k.startswith(f"{folder}/")]:
                del self._folders[known]


def _pages(folder: str, options: dict[str, str]) -> Iterator[tuple[str, int, str]]:
    bucket, key = split(folder)
    request: dict[str, str] = {"Bucket": bucket, "Prefix": f"{key}/" if key else "", **options}
    while True:
        answer = client().call_s3("list_objects_v2", **request)
        for one in answer.get("Contents", ()):
            yield f"{_SCHEME}{bucket}/{one['Key']}", one["Size"], one["ETag"].strip('"')
        if not answer.get("IsTruncated"):
            return
        request["ContinuationToken"] = answer["NextContinuationToken"]


class ObjectReader(RawIOBase):
    """An object as a file; wrap it in a buffer, since each read is a request."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address
        self._size: int = client().info(address)["size"]
        self._position = 0

    def readable(self) -> bool:
        """Always true."""
        return True

    def seekable(self) -> bool:
        """Always true."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """See `io.RawIOBase`."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """See `io.RawIOBase`."""
        size = min(len(buffer), self._size - self._position)
        if size <= 0:
            return 0
        content = read_range(self._address, self._position, size)
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)


def kvstore(folder: str) -> dict[str, Any]:
    """TensorStore's spec of a folder, with the endpoint and the region that botocore chose."""
    fs = client()
    fs.connect()
    endpoint, region = fs.s3.meta.endpoint_url, fs.s3.meta.region_name
    bucket, key = split(folder)
    store = {"driver": "s3", "bucket": bucket, "path": f"{key}/", "aws_region": region}
    if not endpoint.endswith(".amazonaws.com"):
        store["endpoint"] = endpoint
    if "AWS_ACCESS_KEY_ID" in os.environ:  # the default searches for files, with a warning for each
        store["aws_credentials"] = {"type": "environment"}
    return store | {"context": {"s3_request_retries": _RETRIES}}


def fault(error: Exception, where: str) -> StorageError | None:
    """TensorStore's error as one about a failing store; None for an error about the data."""
    reason = " ".join(str(error).partition(" [")[0].split())
    if not reason.startswith(_UNANSWERED):
        return None
    fix = "run again when it answers, see AWS_ENDPOINT_URL; what is done stays done"
    return StorageError(f"the object store fails: {reason[:300]}", where=where, fix=fix)
