"""Conversions between Arrow, NumPy and Python, for plans.

`pa.array`, `pa.scalar` and `to_numpy` do the same, but import pandas, which takes longer than the
rest of a small `status`. Code outside of plans may use those.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


def integers(values: npt.NDArray[np.int64]) -> pa.Array:
    """(N,) int64 as an Arrow array, without a copy."""
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(values)])


def flags(values: npt.NDArray[np.bool_]) -> pa.Array:
    """(N,) bool as an Arrow array."""
    bits = np.packbits(values, bitorder="little")
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, pa.py_buffer(bits)])


def flag(value: bool) -> pa.Scalar:
    """A truth value as an Arrow scalar."""
    return flags(np.array([value]))[0]


def texts(values: Collection[str | None]) -> pa.Array:
    """Texts as an Arrow array of strings.

    Raises:
        UnicodeEncodeError: A text has a surrogate.
        pa.ArrowInvalid: The texts have 2 GiB or more.
    """
    encoded = [None if value is None else value.encode() for value in values]
    ends = np.cumsum([0, *(len(text or b"") for text in encoded)], dtype=np.int64)
    is_there = flags(np.array([text is not None for text in encoded], np.bool_))
    content = pa.py_buffer(b"".join(filter(None, encoded)))
    buffers = [is_there.buffers()[1], pa.py_buffer(ends), content]
    return pa.Array.from_buffers(pa.large_string(), len(encoded), buffers).cast(pa.string())


def text(value: str | None) -> pa.Scalar:
    """A text as an Arrow scalar."""
    return texts([value])[0]


def having(table: pa.Table, column: str, value: str) -> pa.Table:
    """The rows of a table with this text in a column."""
    return table.filter(pc.equal(table[column], text(value)))


def numbers(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """A column of numbers without nulls as a read-only array (N,) of the same type."""
    return np.from_dlpack(whole(column))


def truth(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """A column of truth values as an array (N,); null is false."""
    return numbers(column.fill_null(flag(False)).cast(pa.int8())).astype(np.bool_)


def empty(schema: pa.Schema) -> pa.Table:
    """A table without rows."""
    return pa.Table.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)


def whole(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array."""
    return column.combine_chunks() if column.num_chunks else pa.nulls(0, column.type)
