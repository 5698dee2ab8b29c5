"""Errors of reading an image: a fault of its bytes, or a condition of this machine that may pass.

The same bytes have the same fault on any machine, so a fault may be kept as a fact of the image. A
lack of memory, a missing permission or a failing disk says nothing about it: whoever keeps the
result of a read must keep such an image as one to try again.
"""

import numpy as np

from pipeline.files import storage

_SPARE = 2**26
"""Bytes that opening any file may take besides its pixels."""
_BYTES_A_PIXEL = 15
"""Memory that decoding and converting a pixel takes at most."""


class UnreadableImageError(Exception):
    """An image or label file cannot be decoded; the text says why."""


class UnreachableImageError(UnreadableImageError):
    """A file cannot be read now, e.g. without permission or memory; it may be readable later."""


class MissingImageError(UnreadableImageError):
    """No file has this address."""


def from_read_error(error: OSError) -> UnreadableImageError:
    """The error for a file that the operating system does not let us read."""
    kind = MissingImageError if storage.is_missing(error) else UnreachableImageError
    return kind(f"cannot be read: {error.strerror or error}")


def out_of_memory() -> UnreachableImageError:
    """The error for a file that takes more memory than there is."""
    return UnreachableImageError("decoding it takes more memory than there is")


def from_decode_error(error: Exception, pixels: int, size: int) -> UnreadableImageError:
    """The error for bytes that a decoder failed on, with no other decoder at work.

    Decoders report a lack of memory as one, as damage, or as an unknown error. So damage is
    believed only if there is the memory that decoding takes.

    Args:
        error: Error of the decoder.
        pixels: Pixels of the image; 0 if it failed before they were known.
        size: Bytes of the file.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return UnreachableImageError(f"cannot be decoded: {error.strerror}")
    if isinstance(error, MemoryError):
        return out_of_memory()
    try:
        np.empty(pixels * _BYTES_A_PIXEL + 2 * size + _SPARE, np.uint8)  # reserves, touches nothing
    except MemoryError:
        return out_of_memory()
    return UnreadableImageError(f"damaged: {error}")
