"""The crops of every step: a pure function of seed and step, so that workers and resuming are free.

Threads read, decode and crop ahead of the training; colours are changed on the device, in batches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from zlib import crc32

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.config.vocabulary import IGNORE, Vocabulary
from pipeline.images import images
from pipeline.records.label_reader import LabelReader
from stages.labels.pseudo_labels import PseudoLabels
from stages.train.data.batch import MIX, CropBatch, LabeledBatch, TrainBatch
from stages.train.data.geometry import View, random_view
from stages.train.data.random_numbers import Draws, generator

_BY_HAND = "by hand"
"""Key of the view whose mask a person drew, or that has none."""
_NO_LABEL: dict[str, tuple[Tensor | None, Tensor | None]] = {_BY_HAND: (None, None)}
_Views = dict[str, list[dict[str, View]]]
"""The crops of a step on the CPU: per draw, per image, a view for each label of the image."""


@dataclass(frozen=True)
class StoredLabel:
    """Where an image's label of one labeler is.

    Attributes:
        group: Folder of the Zarr group.
        row: Position in its arrays.
        size: (height, width) of the part of the canvas that is image.
    """

    group: Path
    row: int
    size: tuple[int, int]


@dataclass(frozen=True)
class TrainImage:
    """An image to train on, with its hand-made or stored labels.

    Attributes:
        uri: Address of the image file.
        mask_uri: That of its label file, of a labeled image.
        label_scheme: The vocabulary's scheme of the label file.
        image_id: What ingest noted of the image file's content; None: it is not compared.
        mask_id: That of the label file.
        stored: Its stored labels by labeler.
    """

    uri: str
    mask_uri: str | None = None
    label_scheme: str | None = None
    image_id: str | None = None
    mask_id: str | None = None
    stored: Mapping[str, StoredLabel] = field(default_factory=dict)


@dataclass(frozen=True)
class Crops:
    """Draws the crops of any step; a step is a micro-batch here, where a training has several.

    Attributes:
        labeled: The labeled images.
        others: The images of each role that learns from other labels.
        draws_twice: Whether the first of these roles is drawn a second time.
        vocabulary: Reads label files.
        seed: Of everything random.
        batch_size: Images of each role that all processes together draw.
        crop_px: Side S.
        scale: Bounds of the random resize.
        rows: Which of them this process has, B of each role (`processes.own_rows`); None: all.
    """

    labeled: Sequence[TrainImage]
    others: Mapping[str, Sequence[TrainImage]]
    draws_twice: bool
    vocabulary: Vocabulary
    seed: int
    batch_size: int
    crop_px: int
    scale: tuple[float, float]
    rows: Sequence[int] | None = None

    def batches(self, steps: range, device: torch.device, workers: int) -> Iterator[TrainBatch]:
        """The batches of these steps, in order, drawn ahead by `workers` threads.

        Raises:
            DataError: An image cannot be read any more.
        """
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

    @property
    def _own(self) -> Sequence[int]:
        return range(self.batch_size) if self.rows is None else self.rows

    @property
    def _draws(self) -> dict[str, Sequence[TrainImage]]:
        draws = {"labeled": self.labeled, **self.others}
        if self.others and self.draws_twice:
            draws[MIX] = next(iter(self.others.values()))
        return draws

    def _views(self, step: int) -> _Views:
        return {key: self._draw(key, step) for key in self._draws}

    def _chosen(self, key: str, step: int) -> dict[int, TrainImage]:
        """The images of a draw by their position in its endless sequence."""
        listed, first = self._draws[key], step * self.batch_size
        positions = [first + row for row in self._own]
        return {p: listed[_shuffled(self.seed, key, len(listed), p)] for p in positions}

    def _draw(self, key: str, step: int) -> list[dict[str, View]]:
        chosen = self._chosen(key, step)
        labels = _read_stored([*chosen.values()])
        views = []
        for (position, image), maps in zip(chosen.items(), labels, strict=True):
            if image.mask_uri is not None:
                maps = {_BY_HAND: (self._read_mask(image, image.mask_uri), None)}
            pixels = torch.from_numpy(_decode(image)).permute(2, 0, 1)
            moved = {}
            for name, (mask, confidence) in (maps or _NO_LABEL).items():
                same_geometry = generator(self.seed, f"crop of {key}", position)
                moved[name] = random_view(
                    pixels,
                    self.crop_px,
                    same_geometry,
                    mask=mask,
                    confidence=confidence,
                    scale=self.scale,
                )
            views.append(moved)
        return views

    def _read_mask(self, image: TrainImage, uri: str) -> Tensor:
        with images.readable(uri, expected=image.mask_id) as content:
            labels = images.decode_labels(content)
        return torch.from_numpy(self.vocabulary.to_mask(labels, image.label_scheme)[0])

    def _batch(self, step: int, views: _Views, device: torch.device) -> TrainBatch:
        by_hand = [view[_BY_HAND] for view in views["labeled"]]
        masks = torch.stack([view.mask for view in by_hand if view.mask is not None])
        return TrainBatch(
            LabeledBatch(_pixels(by_hand, device), masks.to(device).long()),
            {k: _crop_batch(v, device) for k, v in views.items() if k != "labeled"},
            Draws(self.seed, step, self._own, self.batch_size),
            {key: self._ids(key, step) for key in views},
        )

    def _ids(self, key: str, step: int) -> list[str]:
        return [image.image_id or image.uri for image in self._chosen(key, step).values()]


def _crop_batch(views: list[dict[str, View]], device: torch.device) -> CropBatch:
    first = [next(iter(view.values())) for view in views]
    stored = {
        labeler: _labels([view[labeler] for view in views], device)
        for labeler in views[0]
        if labeler != _BY_HAND
    }
    return CropBatch(
        pixels=_pixels(first, device),
        valid=torch.stack([view.valid for view in first]).to(device),
        stored=stored,
    )


def _pixels(views: Sequence[View], device: torch.device) -> Tensor:
    """(B, 3, S, S) float in [0, 1]."""
    return torch.stack([view.image for view in views]).to(device).float().div_(255)


def _labels(views: Sequence[View], device: torch.device) -> PseudoLabels:
    masks = [view.mask for view in views if view.mask is not None]
    confidences = [view.confidence for view in views if view.confidence is not None]
    mask = torch.stack(masks).to(device).long()
    confidence = torch.stack(confidences).to(device).float().div_(255)
    return PseudoLabels(mask, confidence.masked_fill(mask == IGNORE, 0))


def _read_stored(
    chosen: Sequence[TrainImage],
) -> list[dict[str, tuple[Tensor | None, Tensor | None]]]:
    """Stored mask and confidence of each image by labeler; all images have the same labelers."""
    found: list[dict[str, tuple[Tensor | None, Tensor | None]]] = [{} for _ in chosen]
    for labeler in chosen[0].stored:
        own = [image.stored[labeler] for image in chosen]
        labels = _reader(own[0].group).read([o.row for o in own], [o.size for o in own])
        for maps, (mask, confidence) in zip(found, labels, strict=True):
            maps[labeler] = (torch.from_numpy(mask), torch.from_numpy(confidence))
    return found


def _decode(image: TrainImage) -> npt.NDArray[np.uint8]:
    with images.readable(image.uri, expected=image.image_id) as content:
        return images.decode_image(content).pixels.copy()


@lru_cache(maxsize=16)
def _reader(group: Path) -> LabelReader:
    return LabelReader(group)


def _shuffled(seed: int, draw: str, count: int, position: int) -> int:
    """The image at a position of an endless shuffled sequence, every epoch in another order."""
    epoch, place = divmod(position, count)
    return int(_permutation(seed, draw, count, epoch)[place])


@lru_cache(maxsize=16)
def _permutation(seed: int, draw: str, count: int, epoch: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed, crc32(draw.encode()), epoch]).permutation(count)
