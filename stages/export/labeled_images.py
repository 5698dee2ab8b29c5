"""Images with labels, to be read one after the other: of a run, or of predictions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.config.config_section import Facts
from pipeline.config.vocabulary import Vocabulary
from pipeline.images import images
from stages.export.sample import Sample

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Item:
    """An image that is to be exported.

    Attributes:
        row: What is known of it: uri, image_id, role, labeler.
        name: Its name in the export.
        split: "train" or "val".
    """

    row: dict[str, Any]
    name: str
    split: str


class LabeledImages(ABC):
    """Images with labels.

    Attributes:
        vocabulary: The classes.
        left_out: How many images are not exported, by reason.
    """

    vocabulary: Vocabulary
    left_out: dict[str, int]

    @property
    @abstractmethod
    def count(self) -> int:
        """Number of images."""

    @property
    @abstractmethod
    def facts(self) -> Facts:
        """What the labels depend on."""

    @abstractmethod
    def shards(self) -> Iterator[tuple[int, Iterator[Item]]]:
        """Groups of images with their numbers, each read before the next; always the same."""

    @abstractmethod
    def mask(self, item: Item) -> Bytes:
        """The label (H, W) uint8 at the image's own size, 255 = ignore.

        Raises:
            MaskmillError: It cannot be read any more.
        """

    def sample(self, item: Item) -> Sample:
        """Reads an image and its label.

        Raises:
            MaskmillError: One of them cannot be read any more.
        """
        with images.readable(item.row["uri"], expected=item.row["image_id"]) as content:
            pixels = images.decode_pixels(content, item.row["image_id"])
        return Sample(item.name, item.split, content, pixels, self.mask(item))
