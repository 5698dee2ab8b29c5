"""What every source is: a listing of files, made without opening one."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from pipeline.components import Component
from pipeline.section import Section


@dataclass(frozen=True)
class Listed:
    """An image file of a source, with the label file that belongs to it, if any."""

    image: Path
    mask: Path | None = None


class Source(Component, ABC):
    """Lists images.

    Args:
        config: The source's own keys, an instance of its `Config`.
        data: Folder that its relative image paths start from.
        beside: Folder of the config file, that its relative list paths start from.
        where: Config file and key of the source, for errors.
    """

    def __init__(self, config: Section, *, data: Path, beside: Path, where: str) -> None:
        self.config = config
        self.data = data
        self.beside = beside
        self.where = where

    @abstractmethod
    def list(self) -> list[Listed]:
        """The source's files in a stable order.

        Raises:
            DataError: Something the config names is missing, empty, or does not fit together.
        """
