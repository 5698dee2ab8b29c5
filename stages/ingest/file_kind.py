"""The kind of each file that a source sees.

An image becomes a row. All other files are companions of a row (a caption, a sidecar, a label
file), or are counted in a remark: see `PassedOver`. So no file vanishes without a word.
"""

import os
import re
from collections import Counter
from enum import Enum

from pipeline.images.file_kinds import starts_as_image

UNDECODED_ENDINGS = frozenset([".heic", ".heif", ".hif", ".jxl", ".svg"])
"""Endings of images that are not decoded: they become rejected rows."""
IMAGE_ENDINGS = UNDECODED_ENDINGS | frozenset(
    [
        *(".apng", ".avif", ".avifs", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe"),
        *(".jpeg", ".jpf", ".jpg", ".jpx", ".mpo", ".pbm", ".pgm", ".png", ".pnm", ".ppm"),
        *(".tif", ".tiff", ".webp"),
    ]
)
"""Endings of files that are listed as images; the format is found in the bytes later."""
_OTHER_ENDINGS = frozenset(
    [
        *(".bz2", ".cls", ".csv", ".gz", ".json", ".jsonl", ".md", ".mp4", ".npy", ".npz"),
        *(".parquet", ".py", ".sha256", ".tar", ".tsv", ".txt", ".xml", ".yaml", ".yml", ".zip"),
    ]
)
"""Endings of files that are no images, and often lie next to each image: they are not opened."""
_SHOWN = 8
"""Endings that a remark names."""

_ENDING = re.compile(r"\.[a-z0-9_+-]{1,12}")
_LIKE_ENDING = re.compile(r"\.[a-z]")


class FileKind(Enum):
    """The kind of a file."""

    IMAGE = "image"
    HIDDEN = "hidden"
    OTHER = "other"
    UNKNOWN = "unknown"
    """Its first bytes decide."""


def kind_by_name(name: str) -> FileKind:
    """The kind of a file by its path below its source's folder; most need not be opened."""
    if is_hidden(name):
        return FileKind.HIDDEN
    if (ending := ending_of(name)) in IMAGE_ENDINGS:
        return FileKind.IMAGE
    return FileKind.OTHER if ending in _OTHER_ENDINGS else FileKind.UNKNOWN


def kind(name: str, start: bytes) -> FileKind:
    """The kind of a file by its name, or else by its first `START` bytes."""
    found = kind_by_name(name)
    if found is not FileKind.UNKNOWN:
        return found
    return FileKind.IMAGE if starts_as_image(start) else FileKind.OTHER


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder on its path, is hidden, or is what macOS adds to archives."""
    if not (name.startswith((".", "__MACOSX/")) or "/." in name or "/__MACOSX/" in name):
        return False  # fast, as there may be a million names
    steps = name.split("/")
    return any(s == "__MACOSX" or (s[:1] == "." and s not in (".", "..")) for s in steps)


def ending_of(name: str) -> str:
    """The ending of a file's name, with its point, in small letters."""
    stem, _, ending = name.rpartition(".")  # three times as fast as `os.path.splitext`
    return "" if stem[-1:] in ("", "/") or "/" in ending else f".{ending.lower()}"


def without_ending(name: str) -> str:
    """A path without its ending, which begins with a letter: that of `22.05` is no ending."""
    stem, ending = os.path.splitext(name)
    return stem if _LIKE_ENDING.match(ending.lower()) else name


class PassedOver:
    """Counts the files of a source that are no images, by ending.

    Attributes:
        counts: The numbers of files, by what the remark calls them.
        first: The first file of each.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.first: dict[str, str] = {}

    def add(self, name: str, kind: FileKind, path: str | None = None) -> None:
        """Counts a file.

        Args:
            name: Its path below the source's folder, or in its archive.
            kind: What it is.
            path: Its full path; default: its name.
        """
        label = "hidden" if kind is FileKind.HIDDEN else _label(ending_of(name))
        self.add_as(label)
        self.first.setdefault(label, path or name)

    def add_as(self, label: str) -> None:
        """Counts a file that is passed over for another reason than its ending."""
        self.counts[label] += 1

    def remark(self) -> str | None:
        """The line for the user: "8 files passed over: no ending 4, hidden 3, .xml 1"."""
        if not self.counts:
            return None
        ordered = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        shown = [f"{label} {count:,}" for label, count in ordered[:_SHOWN]]
        if rest := sum(count for _, count in ordered[_SHOWN:]):
            shown.append(f"others {rest:,}")
        total = self.counts.total()
        return f"{total:,} file{'s'[: total != 1]} passed over: {', '.join(shown)}"


def _label(ending: str) -> str:
    """A remark's word for an ending, which may be any text."""
    if not ending:
        return "no ending"
    return ending if _ENDING.fullmatch(ending) else "other endings"
