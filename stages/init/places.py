"""How a config spells where files are."""

from __future__ import annotations

import os
from pathlib import Path

_FAR = 3
"""Steps upwards from which a relative path is harder to read than a whole one."""


def near(place: Path, start: Path) -> str:
    """A file or folder as a config spells it: relative where it is near, else whole.

    Args:
        place: The file or folder.
        start: The folder that relative paths start from.
    """
    relative = os.path.relpath(place.resolve(), start.resolve())
    return relative if relative.count("..") < _FAR else str(place.resolve())
