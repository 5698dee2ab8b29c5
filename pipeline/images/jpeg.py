"""The cost of decoding a JPEG, from its markers."""

import re

_MARKER = re.compile(rb"\xff[^\x00\xff]")
_SCAN, _END = 0xDA, 0xD9
_WITHOUT_LENGTH = frozenset([0x01, 0xD8, *range(0xD0, 0xD8)])


def count_scans(content: bytes) -> int:
    """Number of scans of the first image, i.e. passes of a decoder over the pixels.

    Scans in metadata, thumbnails and appended videos do not count. ITU-T T.81, annex B.
    """
    scans = 0
    marker = _MARKER.search(content)
    while marker is not None and (kind := content[marker.end() - 1]) != _END:
        position = marker.end()
        scans += kind == _SCAN
        if kind not in _WITHOUT_LENGTH:
            position += int.from_bytes(content[position : position + 2], "big")
        marker = _MARKER.search(content, position)
    return scans
