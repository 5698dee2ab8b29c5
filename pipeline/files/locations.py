"""Locations that a config names: paths on this machine, and addresses s3://bucket/prefix.

Every such path is expanded and cleaned here, so that other code may join and compare paths as text.
"""

import os
import re
from importlib.util import find_spec
from pathlib import Path, PurePath
from typing import Annotated, cast

from pydantic import PlainSerializer, PlainValidator

from pipeline.files import s3_objects

_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")


def location(text: object) -> Path:
    """The path that a config names: on this machine (see `local_path`), or s3://bucket/prefix.

    Raises:
        ValueError: The text is no path, an address of another kind or without a bucket, or s3fs is
            not installed.
    """
    if not isinstance(text, str | PurePath):
        raise ValueError("write a path")
    name = os.fspath(text)
    if not is_address(name):
        return local_path(name)
    if not s3_objects.is_address(name):
        raise ValueError(f"use a path or an address s3://bucket/prefix, not {name}")
    if not (bucket := s3_objects.split(name)[0]):
        raise ValueError("name the bucket: s3://bucket/prefix")
    if "@" in bucket or (":" in bucket and not bucket.startswith("arn:")):
        raise ValueError(
            "leave the credentials out of the address: set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    if find_spec("s3fs") is None:
        raise ValueError("install s3fs for s3:// addresses: pip install 'maskmill[s3]'")
    from upath import UPath  # slow to import, and only such addresses need it

    s3_objects.register()
    return cast(Path, UPath(s3_objects.normalized(name)))


def local_path(text: object) -> Path:
    """A path on this machine, with `~` expanded and without inner `..`, so that joins are safe.

    A relative path stays relative. `..` after a link means the parent of the link's target, as the
    operating system reads it.

    Raises:
        ValueError: The text is no path, is an address, or begins with `~` and an unknown user.
    """
    if not isinstance(text, str | PurePath):
        raise ValueError("write a path")
    if is_address(name := os.fspath(text)):
        raise ValueError(f"use a path on this machine, not {name}")
    try:
        path = Path(name).expanduser() if name.startswith("~") else Path(name)
    except RuntimeError as error:
        raise ValueError(f"{Path(name).parts[0]} is no home folder; write the path out") from error
    plain = Path(path.anchor)
    for step in path.parts[len(plain.parts) :]:
        if step != ".." or plain.name in ("", ".."):
            plain /= step
        else:
            plain = Path(os.path.realpath(plain) if plain.is_symlink() else plain).parent
    return plain


def is_address(text: str) -> bool:
    """Whether a text is an address of any kind, such as s3://bucket or http://host."""
    return _SCHEME.match(text) is not None


def join(folder: Path, path: Path | str) -> Path:
    """A path below a folder, unless it is absolute or an address itself. Raises as `location`."""
    text = str(path)
    if s3_objects.is_address(text) or os.path.isabs(text):
        return location(text)
    is_object = s3_objects.is_address(str(folder))
    return location(f"{folder}/{text}" if is_object else os.path.join(str(folder), text))


Location = Annotated[Path, PlainValidator(location), PlainSerializer(str)]
"""A config field that holds a path or an s3:// address, and does not start at the config file."""
