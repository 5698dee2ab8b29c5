"""Descriptions of bytes that are not a decodable image, e.g. an HTML page sent in its place."""

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
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def describe(content: bytes) -> str:
    """A description of undecodable bytes: "an HTML page, which is not decoded"."""
    for known, name in _IMAGES.items():
        if content.startswith(known):
            return f"damaged: the {name} has no header that can be read"
    kind = _kind(content)
    return "not an image of a known format" if kind is None else f"{kind}, which is not decoded"


def _kind(content: bytes) -> str | None:
    if content[4:8] == b"ftyp":
        brand = content[8:12]
        if brand in HEIF_BRANDS:
            return "a HEIC image"
        return "an AVIF image" if brand in (b"avif", b"avis") else "a video"
    start = content[:256].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for known, name in _STARTS.items():
        if content.startswith(known) or start.startswith(known):
            return name
    return None
