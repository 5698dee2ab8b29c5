"""Reads torch's files without running anything of them: tensors, arrays and plain values only."""

from __future__ import annotations

import argparse
import codecs
import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch


class ForbiddenValueError(Exception):
    """A file holds something that could run code; the text says what, on one line."""


def _empty_array(kind: object, shape: object, _: object) -> np.ndarray[Any, Any]:
    """What NumPy's pickles begin an array with; its state, which follows, has the size of the file.

    Raises:
        ForbiddenValueError: Another shape, which would be memory that nobody wrote to.
    """
    if kind is not np.ndarray or shape != (0,):
        raise ForbiddenValueError("it holds an array without its values")
    return np.empty(0, np.uint8)


_SCALAR = np.float32(0).__reduce__()[0]
_KINDS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")
_PLAIN: list[Any] = [
    *((_empty_array, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *(np.ndarray, np.dtype, codecs.encode, argparse.Namespace),
    *(type(np.dtype(kind)) for kind in _KINDS),
]
"""What torch's reader may build besides tensors; none of it runs code of the file."""
_NAMED = re.compile(r"GLOBAL ([\w.]+) was|but got <class '([\w.]+)'>")
"""How torch names what it refused."""


def load(path: Path, *, is_zip: bool) -> Any:
    """What a file holds, on the CPU.

    Args:
        path: The file.
        is_zip: Whether it is of torch's newer format, which is mapped into memory: an optimizer's
            part of the file is not read.

    Raises:
        ForbiddenValueError: It holds a value that is no tensor and not plain.
        Exception: It is damaged, which raises many kinds of errors.
    """
    try:
        with torch.serialization.safe_globals(_PLAIN):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except UnpicklingError as error:
        if (found := _NAMED.search(str(error))) is None:
            raise
        what = f"it holds {found[1] or found[2]}, which is no tensor and might run code"
        raise ForbiddenValueError(f"{what}; save only its `state_dict()`") from error
