"""The client of object stores: s3fs, with separate errors for failing stores and missing objects.

fsspec imports this module for the first s3:// address (see `pipeline.files.storage`).
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import IncompleteRead
from typing import Any

from aiohttp import ClientError as ConnectionFault
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoAuthTokenError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)
from fsspec.asyn import sync_wrapper
from s3fs import S3FileSystem

from pipeline.errors import StorageError

_NO_CREDENTIALS = (
    *(NoCredentialsError, PartialCredentialsError, CredentialRetrievalError),
    *(NoAuthTokenError, ProfileNotFound),
)
_REFUSED_CREDENTIALS = {
    *("ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"),
    *("RequestTimeTooSkewed", "TokenRefreshRequired"),
}
_SCHEME_FIX = "begin it with http:// or https://"
_SETTINGS = {
    "AWS_ENDPOINT_URL_S3": _SCHEME_FIX,
    "AWS_ENDPOINT_URL": _SCHEME_FIX,
    "AWS_MAX_ATTEMPTS": "set it to a number from 1 on",
    "AWS_RETRY_MODE": "set it to legacy, standard or adaptive",
}
"""Variables whose values botocore quotes when it refuses them, and the fix for each."""
_BUSY = (408, 429)
"""Statuses 4xx that ask for a retry."""
_REGION = (301, 307)


class ObjectStore(S3FileSystem):  # type: ignore[misc]
    """S3 without a cache of listings, since other processes write too.

    Raises:
        FileNotFoundError: There is no such object.
        PermissionError: Access to the object is denied.
        OSError: The store refuses the request, e.g. because its condition does not hold.
        StorageError: Everything else, after the retries of botocore and s3fs: no answer, a status
            5xx, no bucket, no credentials. It says nothing about the object.
    """

    protocol = ("s3", "s3a")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"use_listings_cache": False, **options})

    async def set_session(self, *args: Any, **options: Any) -> Any:
        """Extends s3fs: the error names a wrong setting."""
        try:
            return await super().set_session(*args, **options)
        except _NO_CREDENTIALS:
            raise
        except (ValueError, BotoCoreError) as error:
            if (wrong := _wrong_setting(error)) is None:
                raise
            raise wrong from error

    connect = sync_wrapper(set_session)

    def split_path(self, path: str) -> tuple[str, str, None]:
        """Bucket and key of an address; `?versionId=` is part of the key like any other text."""
        trail = path[len(path.rstrip("/")) :]
        bucket, _, key = self._strip_protocol(path).lstrip("/").partition("/")
        return bucket, f"{key}{trail}" if key else "", None

    async def _expand_path(
        self,
        path: Any,
        recursive: bool = False,
        maxdepth: int | None = None,
        assume_literal: bool = True,
    ) -> Any:
        """Takes `*`, `?` and `[` as what they are, parts of keys.

        fsspec takes them for patterns, and would delete all objects that fit.
        """
        del assume_literal
        return await super()._expand_path(path, recursive, maxdepth, assume_literal=True)

    async def _call_s3(self, method: str, *args: Any, **request: Any) -> Any:
        key = request.get("Key", request.get("Prefix", ""))
        with _translated_errors(f"s3://{request.get('Bucket', '')}/{key}"):
            return await super()._call_s3(method, *args, **request)

    call_s3 = sync_wrapper(_call_s3)

    async def _cat_file(self, path: str, *args: Any, **options: Any) -> Any:
        # This reads the body too, where the connection may break.
        with _translated_errors(path if path.startswith("s3://") else f"s3://{path}"):
            return await super()._cat_file(path, *args, **options)


@contextmanager
def _translated_errors(address: str) -> Iterator[None]:
    """Raises the errors that `ObjectStore` promises."""
    try:
        yield
    except _NO_CREDENTIALS as error:
        fix = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, and run again"
        raise StorageError(f"no credentials: {error}", where=address, fix=fix) from error
    except OSError as error:
        if (translated := _translated(error, address)) is error:
            raise
        raise translated from error
    except (BotoCoreError, ConnectionFault, IncompleteRead) as error:
        raise _unanswered(error, address) from error


def _translated(error: OSError, address: str) -> Exception:
    """The error that an answer of the store means."""
    response = error.__cause__.response if isinstance(error.__cause__, ClientError) else {}
    code = str(response.get("Error", {}).get("Code"))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code == "NoSuchBucket":
        fix = "create the bucket, or correct the address"
        return StorageError("no such bucket", where=address, fix=fix)
    if code in _REFUSED_CREDENTIALS:
        what = f"the store refuses the credentials: {code}"
        return StorageError(what, where=address, fix="renew the credentials and run again")
    if status in _REGION:
        what = "the bucket is in another region"
        return StorageError(what, where=address, fix="set AWS_REGION to the bucket's region")
    is_answer = 400 <= status < 500 and status not in _BUSY
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), address)
    if isinstance(error, PermissionError):
        return PermissionError(errno.EACCES, os.strerror(errno.EACCES), address)
    if is_answer:
        return error
    return _unanswered(error, address)


def _wrong_setting(error: Exception) -> StorageError | None:
    reason = " ".join(str(error).split())[:200]
    for name, fix in _SETTINGS.items():
        if (value := os.environ.get(name)) and value in reason:
            return StorageError(reason, where=name, fix=fix)
    if isinstance(error, BotoCoreError):  # e.g. the credential service does not answer
        return None
    fix = "correct the AWS_* variables or ~/.aws/config"
    return StorageError(reason, where="settings of the object store", fix=fix)


def _unanswered(error: Exception, address: str) -> StorageError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    fix = "run again when it answers, see AWS_ENDPOINT_URL; what is done stays done"
    return StorageError(f"the object store fails: {reason}", where=address, fix=fix)
