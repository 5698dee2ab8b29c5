"""Kinds of files by their first bytes: images, and what is sent in their place, e.g. a page."""

import re

_STARTS = {
    b"%PDF": "a PDF",
    b"%!PS": "a PostScript file",
    b"8BPS": "a Photoshop file",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip file",
    b"<svg": "an SVG drawing",
    b"<?xml": "an XML file",
    b"<html": "an HTML page",
    b"<!doctype html": "an HTML page",
    b"\xff\x0a": "a JPEG XL image",
    b"\x00\x00\x00\x0cjxl ": "a JPEG XL image",
    b"\x1a\x45\xdf\xa3": "a video",
}
_IMAGES = {
    b"\xff\xd8": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

START = 512
"""First bytes of a file that `starts_as_image` needs."""
_IMAGE_STARTS = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"8BPS"),
    *(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    *(b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51", b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"),
)
_IMAGE_PATTERNS = (
    re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
    re.compile(rb".{4}ftyp(?:avif|avis|" + b"|".join(_HEIF_BRANDS) + b")", re.DOTALL),
    re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL),
    re.compile(rb"P[1-6]\s+(?:#[^\n]*\n\s*)*\d+\s+(?:#[^\n]*\n\s*)*\d+\s"),
    re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<(?:\?xml|!)[^>]*>\s*)*<svg[\s>]", re.IGNORECASE),
)


def describe(content: bytes) -> str:
    """A description of undecodable bytes: "an HTML page, which is not decoded"."""
    for known, name in _IMAGES.items():
        if content.startswith(known):
            return f"damaged: the {name} has no header that can be read"
    kind = _kind(content)
    return "not an image of a known format" if kind is None else f"{kind}, which is not decoded"


def starts_as_image(start: bytes) -> bool:
    """Whether the first bytes of a file are those of an image, decodable or not."""
    if start.startswith(_IMAGE_STARTS):
        return True
    return any(pattern.match(start) for pattern in _IMAGE_PATTERNS)


def _kind(content: bytes) -> str | None:
    if content[4:8] == b"ftyp":
        brand = content[8:12]
        if brand in _HEIF_BRANDS:
            return "a HEIC image"
        return "an AVIF image" if brand in (b"avif", b"avis") else "a video"
    start = content[:256].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for known, name in _STARTS.items():
        if content.startswith(known) or start.startswith(known):
            return name
    return None
