"""The code and libraries of a process, compared between the command and its workers.

A worker of a running scheduler may have been started from a checkout that was updated since, or on
a machine with other libraries. It would label with them, recorded as what the command has.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import MaskmillError
from pipeline.records.part_file import installed

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("pipeline", "stages")
"""With what lies in them: embedded weights, settings."""
_COMPILED = (".pyc", ".pyo")
_LIBRARIES = (
    *("numpy", "pillow", "torch", "torchvision", "timm", "open_clip_torch", "segment-anything"),
    *("transformers", "scipy", "pycocotools", "zarr", "tensorstore"),
)
"""Packages that labels come from, directly or not."""
_CODE = "code of Maskmill"


def _identity() -> dict[str, str]:
    found = hashlib.sha256()
    for package in _PACKAGES:
        for path in sorted((_ROOT / package).rglob("*")):
            if not path.is_file() or path.suffix in _COMPILED:
                continue
            found.update(f"{path.relative_to(_ROOT).as_posix()}\0".encode())
            found.update(path.read_bytes())
    return {_CODE: found.hexdigest()[:12], **installed(_LIBRARIES)}


OWN: Mapping[str, str] = _identity()
"""The digest of the code, and the versions, of this process as it was started."""


def check_same(wanted: Mapping[str, str]) -> None:
    """Refuses to work for a command of other code or libraries.

    Args:
        wanted: `OWN` of the command.

    Raises:
        MaskmillError: Something differs; names it and this process.
    """
    names = [name for name in {**wanted, **OWN} if wanted.get(name) != OWN.get(name)]
    if not names:
        return
    shown = ", ".join(
        f"{name} {OWN.get(name, 'missing')}, not {wanted.get(name, 'missing')}" for name in names
    )
    where = f"worker process {os.getpid()} on {platform.node()}"
    raise other_code(shown, where)


def other_code(what: str, where: str) -> MaskmillError:
    """The error for a worker that must not work for this command."""
    fix = "install the same there and start the worker again; it has labeled nothing"
    return MaskmillError(f"it has other code than this command: {what}", where=where, fix=fix)
