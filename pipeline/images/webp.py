"""Facts of a WebP file from its chunks (RFC 9649); Pillow opens one only with memory for pixels."""


def count_pixels(content: bytes) -> int:
    """Pixels of a WebP file; 0 for bytes of another kind."""
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP" or len(content) < 30:
        return 0
    kind = content[12:16]
    if kind == b"VP8X":
        return (_number(content[24:27]) + 1) * (_number(content[27:30]) + 1)
    if kind == b"VP8L":
        sides = _number(content[21:25])
        return ((sides & 0x3FFF) + 1) * ((sides >> 14 & 0x3FFF) + 1)
    return (_number(content[26:28]) & 0x3FFF) * (_number(content[28:30]) & 0x3FFF)


def is_lossless(content: bytes) -> bool:
    """Whether a WebP file has lossless pixels."""
    position = 12
    while position + 8 <= len(content):
        if content[position : position + 4] == b"VP8L":
            return True
        size = _number(content[position + 4 : position + 8])
        position += 8 + size + size % 2
    return False


def _number(digits: bytes) -> int:
    return int.from_bytes(digits, "little")
