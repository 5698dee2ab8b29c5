"""Which labeled images train and which are kept to score on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

_SHARE = 0.25
_LEAST = 6
"""Labeled images below which all of them train."""


def split(images: Sequence[str]) -> tuple[list[str], list[str]]:
    """Labeled images to train on, and a quarter of them to score on, each sorted.

    Names decide by chance, so that the same image is on the same side on every machine. Below six
    images nothing is kept back.
    """
    if len(images) < _LEAST:
        return sorted(images), []
    drawn = sorted(images, key=lambda name: hashlib.sha256(name.encode()).digest())
    count = round(_SHARE * len(images))
    return sorted(drawn[count:]), sorted(drawn[:count])
