"""What every source is: a listing of files, made without opening an image."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from pipeline.components import Component
from pipeline.section import Section

IMAGE_ENDINGS = frozenset(
    [
        ".avif",
        ".bmp",
        ".gif",
        ".jfif",
        ".jpeg",
        ".jpg",
        ".jp2",
        ".png",
        ".ppm",
        ".pgm",
        ".tif",
        ".tiff",
        ".webp",
    ]
)
"""Names of files that are taken for images; what they really are, their bytes tell."""


@dataclass(frozen=True, slots=True)
class Listed:
    """An image of a source.

    Attributes:
        image: Its address: a path, or a place in a tar archive (`pipeline.tar`).
        mask: Address of the label file that belongs to it, if any.
        caption: What the source says of it.
        url: Where the source got it.
        problem: Why it must not be read, where the listing shows that already.
    """

    image: str
    mask: str | None = None
    caption: str | None = None
    url: str | None = None
    problem: str | None = None


class Source(Component, ABC):
    """Lists images.

    Args:
        config: The source's own keys, an instance of its `Config`.
        data: Folder that its relative image paths start from.
        beside: Folder of the config file, that its relative list paths start from.
        cache: Folder for what it would rather not work out again; may be missing or read-only.
        where: Config file and key of the source, for errors.

    Attributes:
        remarks: What `list` found that a user should know and no row tells, in lines.
    """

    def __init__(
        self, config: Section, *, data: Path, beside: Path, cache: Path, where: str
    ) -> None:
        self.config = config
        self.data = data
        self.beside = beside
        self.cache = cache
        self.where = where
        self.remarks: list[str] = []

    @abstractmethod
    def list(self) -> list[Listed]:
        """The source's files in a stable order, none of them twice.

        Raises:
            DataError: Something the config names is missing, empty, or does not fit together.
        """
