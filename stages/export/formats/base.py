"""The base class of formats."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from pipeline.config.components import Component
from pipeline.config.vocabulary import IGNORE, Vocabulary
from pipeline.engine.output_folder import OutputFolder
from stages.export.sample import Sample

Record = dict[str, Any]
"""What the index of a format needs to know of an image; plain values for JSON."""


class Format(Component, ABC):
    """Writes images with labels as another tool reads them.

    Args:
        folder: Where to.
        vocabulary: The classes.

    Attributes:
        has_ignore: Whether the tool knows ignored pixels; else they look like background.
        is_exact: Whether it holds pixels; polygons depend on how a tool fills them.
        needs: The optional library that the format needs.
    """

    has_ignore: ClassVar[bool] = True
    is_exact: ClassVar[bool] = True
    needs: ClassVar[str | None] = None

    def __init__(self, folder: OutputFolder, vocabulary: Vocabulary) -> None:
        self.folder = folder
        self.vocabulary = vocabulary

    def write(self, samples: Iterable[Sample], shard: int) -> Iterator[Record]:
        """Writes the images of a shard, one after the other, and yields a record of each.

        Args:
            samples: The images.
            shard: The number of the shard.
        """
        for sample in samples:
            yield self.add(sample)

    @abstractmethod
    def add(self, sample: Sample) -> Record:
        """Writes the files of one image."""

    @abstractmethod
    def finish(self, records: Iterable[Record]) -> None:
        """Writes the index of all images.

        Args:
            records: The records of all images in order; may be read several times.
        """

    @property
    def background(self) -> int:
        """Id of the class that is no object; 255 if there is none."""
        return background_of(self.vocabulary)

    @property
    def objects(self) -> dict[int, str]:
        """Names of the classes but the background, by class id."""
        names = enumerate(self.vocabulary.class_names)
        return {class_id: name for class_id, name in names if class_id != self.background}

    def write_json(self, name: str, value: Any) -> None:
        """Writes a small JSON file."""
        text = json.dumps(value, indent=1, ensure_ascii=False)
        self.folder.write(name, f"{text}\n".encode())

    def write_lines(self, name: str, lines: Iterable[str]) -> None:
        """Writes a text file line by line."""
        with self.folder.replacing(name) as path, path.open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)


def background_of(vocabulary: Vocabulary) -> int:
    """Id of the class that is no object: the background, or the one so called; 255 if none is."""
    names, own = vocabulary.class_names, vocabulary.background_id
    return names.index("background") if own == IGNORE and "background" in names else own
