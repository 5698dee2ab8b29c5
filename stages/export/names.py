"""Names of exported images: safe in every tool and on every disk, and different."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from pipeline.files import tar

_UNSAFE = re.compile("[^A-Za-z0-9_-]+")
_LONGEST = 100


def export_names(images: Sequence[tuple[str, str]]) -> list[str]:
    """Names for images, in order.

    A name is that of the file without its ending, with `_` for anything but letters, digits, `_`
    and `-`. Images that would share a name, whatever its case, get the start of their id behind it.

    Args:
        images: Address and image_id of each.
    """
    plain = [_plain(address) for address, _ in images]
    counts = Counter(name.lower() for name in plain)
    found = [
        name if counts[name.lower()] == 1 else f"{name}-{image_id[:12]}"
        for name, (_, image_id) in zip(plain, images, strict=True)
    ]
    taken = Counter(name.lower() for name in found)
    return [
        name if taken[name.lower()] == 1 else f"{name}-{number}"
        for number, name in enumerate(found)
    ]


def _plain(address: str) -> str:
    member = tar.parse(address)
    name = PurePosixPath(address if member is None else member.name).name
    stem = PurePosixPath(name).stem if "." in name else name
    return _UNSAFE.sub("_", stem).strip("_")[:_LONGEST] or "image"
