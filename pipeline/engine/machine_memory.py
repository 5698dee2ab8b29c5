"""The memory of this machine, for keys that ask for more than there can be."""

import os

from pipeline.errors import ConfigError

_GIB = 2**30


def total_bytes() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def more_than_all(what: str, size: int, *, where: str, fix: str) -> ConfigError | None:
    """The error for something that takes more memory than the machine has; None if it fits.

    Args:
        what: What takes it: "the crops of a step".
        size: Bytes that it takes at least.
        where: The key that decides.
        fix: What to do.
    """
    if size <= (total := total_bytes()):
        return None
    text = f"{what} take {size / _GIB:,.0f} GiB, and this machine has {total / _GIB:,.0f} GiB"
    return ConfigError(text, where=where, fix=fix)
