"""Objects by their addresses s3://bucket/key: names, listings, stamps, pieces.

Only `pipeline.files.storage` and `pipeline.files.s3_lease` ask here; everybody else asks `storage`.
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
"""Of TensorStore, whose 32 retries would take half an hour to say that nobody answers."""

_UNANSWERED = ("ABORTED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "PERMISSION_DENIED")
"""How it begins what it says of a store that fails."""


def is_address(text: str) -> bool:
    """Whether it is an address of an object."""
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
    """The file system of this process; `pipeline.files.s3_client` says what it raises."""
    return _client_of(os.getpid())


@cache
def register() -> None:
    """Has fsspec, and so `UPath`, take our client for s3:// addresses."""
    import fsspec  # not for those who have no such address

    fsspec.register_implementation("s3", "pipeline.files.s3_client.ObjectStore", clobber=True)


@cache
def _client_of(process: int) -> Any:
    import fsspec

    register()
    return fsspec.filesystem("s3", skip_instance_cache=True)  # fsspec keeps one a thread


def read(address: str, most: int | None) -> tuple[bytes, int]:
    """An object's bytes, or the first ones where there are more than `most`, and its size."""
    if most is None:
        content: bytes = client().cat_file(address, max_concurrency=1)  # one request, no question
        return content, len(content)
    content = piece(address, 0, most + 1)
    return content, len(content) if len(content) <= most else client().info(address)["size"]


def piece(address: str, start: int, size: int) -> bytes:
    """Some of an object's bytes; less where it ends before."""
    try:
        content: bytes = client().cat_file(address, start=start, end=start + size)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return b""  # the range is not in it
    return content


def listed(folder: str) -> Iterator[tuple[str, int, str]]:
    """Address, size and ETag of every object below a folder, a thousand a request."""
    yield from _pages(folder, {})


def stamps_in(folder: str) -> dict[str, str]:
    """Size and ETag of the objects in a folder, by name."""
    page = _pages(folder, {"Delimiter": "/"})
    return {address.rpartition("/")[2]: f"{size}:{tag}" for address, size, tag in page}


class Stamps:
    """Sizes and ETags by address, of listings: a request a thousand objects, not one each.

    What a source lists is what its stamps are until it lists again: an object that changes in
    between is found changed by the next run.
    """

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, str]] = {}
        self._lock = Lock()

    def files(self, folder: str) -> Iterator[str]:
        """Lists anew what is below a folder."""
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
        """The stamp of an object; None where there is none."""
        parent, _, name = address.rpartition("/")
        with self._lock:
            if parent not in self._folders:
                self._folders[parent] = stamps_in(parent)
            return self._folders[parent].get(name)

    def forget(self, folder: str) -> None:
        """Has stamps in a folder, and below, asked for anew."""
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
    """An object as a file; to be read through a buffer, for each read is a request."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address
        self._size: int = client().info(address)["size"]
        self._position = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """As of any file."""
        size = min(len(buffer), self._size - self._position)
        if size <= 0:
            return 0
        content = piece(self._address, self._position, size)
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)


def kvstore(folder: str) -> dict[str, Any]:
    """How TensorStore reads a folder: by the endpoint and the region that botocore settled on."""
    fs = client()
    fs.connect()
    endpoint, region = fs.s3.meta.endpoint_url, fs.s3.meta.region_name
    bucket, key = split(folder)
    store = {"driver": "s3", "bucket": bucket, "path": f"{key}/", "aws_region": region}
    if not endpoint.endswith(".amazonaws.com"):
        store["endpoint"] = endpoint
    if "AWS_ACCESS_KEY_ID" in os.environ:  # its default looks for files and complains of each
        store["aws_credentials"] = {"type": "environment"}
    return store | {"context": {"s3_request_retries": _RETRIES}}


def fault(error: Exception, where: str) -> StorageError | None:
    """What TensorStore says of a store that does not answer; None where it speaks of the data."""
    reason = " ".join(str(error).partition(" [")[0].split())
    if not reason.startswith(_UNANSWERED):
        return None
    fix = "run again when it answers, see AWS_ENDPOINT_URL; what is done stays done"
    return StorageError(f"the object store fails: {reason[:300]}", where=where, fix=fix)
