"""The crops of every step, as a function of seed and step alone.

Threads read, decode and crop ahead of the training. Colors are changed later, on the device.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from zlib import crc32

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.config.vocabulary import IGNORE, Vocabulary
from pipeline.images import images
from pipeline.images.label_files import decode_labels
from pipeline.records.label_reader import LabelReader, StoredLabel
from stages.labels.pseudo_labels import PseudoLabels
from stages.train.config import VariantConfig
from stages.train.data.batch import SECOND_DRAW, CropBatch, LabeledBatch, TrainBatch
from stages.train.data.geometry import CropView, LabelMaps, random_view
from stages.train.data.random_numbers import StepRandom, generator

_HAND_MADE = "hand-made"
"""Key of the labels of a labeled image."""
_Views = dict[str, list[CropView]]
"""The crops of a step on the CPU, by the keys of `TrainBatch.crops` and `labeled`."""


@dataclass(frozen=True)
class TrainImage:
    """An image to train on, with its hand-made or stored labels.

    Attributes:
        uri: Address of the image file.
        mask_uri: Address of the label file, for a labeled image.
        label_scheme: The vocabulary's scheme of the label file.
        image_id: Content id recorded by ingest for the image file; None: not compared.
        mask_id: The same for the label file.
        stored: Stored labels by labeler.
    """

    uri: str
    mask_uri: str | None = None
    label_scheme: str | None = None
    image_id: str | None = None
    mask_id: str | None = None
    stored: Mapping[str, StoredLabel] = field(default_factory=dict)


@dataclass(frozen=True)
class Crops:
    """Draws the crops of any step. With several micro-batches a step, each counts as a step here.

    Attributes:
        labeled: The labeled images.
        others: The images of each role that is learned from without hand-made labels.
        config: Size, scale and number of the crops, and the perturbation they are for.
        vocabulary: Decodes label files.
        seed: Seed of all random numbers.
        rows: Rows of the whole batch that this process has (`distributed.local_rows`); None: all.
    """

    labeled: Sequence[TrainImage]
    others: Mapping[str, Sequence[TrainImage]]
    config: VariantConfig
    vocabulary: Vocabulary
    seed: int
    rows: Sequence[int] | None = None
    _reader: LabelReader = field(default_factory=LabelReader, init=False, repr=False, compare=False)

    def batches(self, steps: range, device: torch.device) -> Iterator[TrainBatch]:
        """The batches of these steps in order, read ahead by `config.workers` threads.

        Raises:
            DataError: An image can no longer be read.
        """
        workers = self.config.workers
        waiting: deque[tuple[int, Future[_Views]]] = deque()
        with ThreadPoolExecutor(workers) as threads:
            try:
                for step in steps:
                    waiting.append((step, threads.submit(self._views, step)))
                    if len(waiting) > 2 * workers:
                        ready, views = waiting.popleft()
                        yield self._batch(ready, views.result(), device)
                while waiting:
                    ready, views = waiting.popleft()
                    yield self._batch(ready, views.result(), device)
            finally:
                threads.shutdown(cancel_futures=True)

    def chosen(self, key: str, step: int) -> dict[int, TrainImage]:
        """The images of a step, by their position in the endless shuffled sequence of a key."""
        listed, first = self._listed[key], step * self.config.micro_batch_size
        positions = [first + row for row in self._rows]
        return {p: listed[_shuffled(self.seed, key, len(listed), p)] for p in positions}

    @property
    def _rows(self) -> Sequence[int]:
        return range(self.config.micro_batch_size) if self.rows is None else self.rows

    @property
    def _listed(self) -> dict[str, Sequence[TrainImage]]:
        """The images to draw from, by the keys of `TrainBatch.crops` and `labeled`."""
        listed = {"labeled": self.labeled, **self.others}
        if self.others and self.config.perturbation.component.draws_twice:
            listed[SECOND_DRAW] = next(iter(self.others.values()))
        return listed

    def _views(self, step: int) -> _Views:
        return {key: self._crop(key, step) for key in self._listed}

    def _crop(self, key: str, step: int) -> list[CropView]:
        chosen = self.chosen(key, step)
        labels = self._read_stored([*chosen.values()])
        views = []
        for (position, image), maps in zip(chosen.items(), labels, strict=True):
            if image.mask_uri is not None:
                maps = {_HAND_MADE: LabelMaps(self._read_mask(image, image.mask_uri))}
            views.append(
                random_view(
                    torch.from_numpy(_decode(image)).permute(2, 0, 1),
                    self.config.crop_px,
                    generator(self.seed, f"crop of {key}", position),
                    labels=maps,
                    scale=self.config.scale,
                    short_side_px=self.config.short_side_px,
                    mirror=self.config.mirror,
                )
            )
        return views

    def _read_stored(self, chosen: Sequence[TrainImage]) -> list[dict[str, LabelMaps]]:
        """The stored labels of each image by labeler."""
        places = [label for image in chosen for label in image.stored.values()]
        read = iter(self._reader.read(places))
        return [
            {labeler: LabelMaps(*map(torch.from_numpy, next(read))) for labeler in image.stored}
            for image in chosen
        ]

    def _read_mask(self, image: TrainImage, uri: str) -> Tensor:
        with images.readable(uri, expected=image.mask_id) as content:
            labels = decode_labels(content)
        return torch.from_numpy(self.vocabulary.to_mask(labels, image.label_scheme)[0])

    def _batch(self, step: int, views: _Views, device: torch.device) -> TrainBatch:
        labeled = views["labeled"]
        masks = torch.stack([view.labels[_HAND_MADE].mask for view in labeled])
        return TrainBatch(
            LabeledBatch(_pixels(labeled, device), masks.to(device).long()),
            {k: _crop_batch(v, device) for k, v in views.items() if k != "labeled"},
            StepRandom(self.seed, step, self._rows, self.config.micro_batch_size),
            {key: self._ids(key, step) for key in views},
        )

    def _ids(self, key: str, step: int) -> list[str]:
        return [image.image_id or image.uri for image in self.chosen(key, step).values()]


def _crop_batch(views: Sequence[CropView], device: torch.device) -> CropBatch:
    labelers = [name for name in views[0].labels if name != _HAND_MADE]
    return CropBatch(
        pixels=_pixels(views, device),
        valid=torch.stack([view.valid for view in views]).to(device),
        stored={name: _labels([view.labels[name] for view in views], device) for name in labelers},
    )


def _pixels(views: Sequence[CropView], device: torch.device) -> Tensor:
    """(B, 3, S, S) float in [0, 1]."""
    return torch.stack([view.image for view in views]).to(device).float().div_(255)


def _labels(maps: Sequence[LabelMaps], device: torch.device) -> PseudoLabels:
    confidences = [each.confidence for each in maps if each.confidence is not None]
    mask = torch.stack([each.mask for each in maps]).to(device).long()
    confidence = torch.stack(confidences).to(device).float().div_(255)
    return PseudoLabels(mask, confidence.masked_fill(mask == IGNORE, 0))


def _decode(image: TrainImage) -> npt.NDArray[np.uint8]:
    with images.readable(image.uri, expected=image.image_id) as content:
        return images.decode_pixels(content, image.image_id).copy()


def _shuffled(seed: int, key: str, count: int, position: int) -> int:
    """The image at a position of an endless sequence that is shuffled again for each epoch."""
    epoch, place = divmod(position, count)
    return int(_permutation(seed, key, count, epoch)[place])


@lru_cache(maxsize=16)
def _permutation(seed: int, key: str, count: int, epoch: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed, crc32(key.encode()), epoch]).permutation(count)
