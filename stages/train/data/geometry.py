"""Random geometry: an image and its label maps, resized, cropped and mirrored together."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor
from torch.nn.functional import interpolate

from pipeline.config.vocabulary import IGNORE
from stages.models.segmenters.protocol import MAX_ASPECT

FLIP_PROBABILITY = 0.5


@dataclass(frozen=True)
class LabelMaps:
    """The labels of one image, at any resolution.

    Attributes:
        mask: (h, w) uint8 class ids, 255 = ignore.
        confidence: (h, w) uint8, 255 = certain; None if the labels have no confidence.
    """

    mask: Tensor
    confidence: Tensor | None = None


@dataclass(frozen=True)
class CropView:
    """A square crop of one image at a random scale, possibly mirrored.

    Attributes:
        image: (3, S, S) uint8 RGB, 0 on padding.
        valid: (S, S) bool, False only on padding; ignored pixels stay valid.
        labels: Label maps (S, S) by name; on padding 255 in masks and 0 in confidences.
    """

    image: Tensor
    valid: Tensor
    labels: Mapping[str, LabelMaps] = field(default_factory=dict)


@dataclass(frozen=True)
class _Span:
    """The source pixels [start, stop) of an axis of `size` pixels, resized to `length` pixels."""

    size: int
    start: int
    stop: int
    length: int

    def nearest(self, cells: int) -> Tensor:
        """For each new pixel, the cell under its center in a map with `cells` cells per axis."""
        centres = (torch.arange(self.length) + 0.5) * ((self.stop - self.start) / self.length)
        return ((centres + self.start) * (cells / self.size)).long().clamp(max=cells - 1)


def random_view(
    image: Tensor,
    size_px: int,
    generator: Generator,
    *,
    labels: Mapping[str, LabelMaps] | None = None,
    scale: tuple[float, float] = (0.5, 2.0),
    short_side_px: int | None = None,
    mirror: bool = True,
) -> CropView:
    """Resizes, pads, crops and flips at random, as UniMatch does (arXiv 2208.09910, its code).

    The long side becomes a uniform integer between its length times the bounds of `scale`; or with
    `short_side_px` the short side becomes that length times a uniform number between the bounds, as
    in SemiVL (arXiv 2311.16241) by mmsegmentation's `Resize`. A side shorter than S is padded at
    the right or the bottom, a longer one is cropped at random. Only the crop is resized: its box is
    rounded to whole pixels of the source, the same for the image and all label maps.

    Args:
        image: (3, h, w) uint8 RGB on the CPU.
        size_px: Side S of the view.
        generator: Source of randomness, on the CPU.
        labels: Label maps of the same area, by name.
        scale: Bounds of the random scale.
        short_side_px: Length of the short side at scale 1; the long side has at most four times
            this length. None: scales are relative to the image's own size.
        mirror: Whether every second view is mirrored.

    Returns:
        The view; the image bilinear (antialiased where it shrinks), label maps nearest.
    """
    height, width = image.shape[-2:]
    if short_side_px is None:
        new, old = _random_long_side(max(height, width), scale, generator)
    else:
        new, old = _random_short_side(height, width, short_side_px, scale, generator)
    rows, columns = (
        _random_span(side, int(side * new / old + 0.5), size_px, generator)
        for side in (height, width)
    )
    mirrored = mirror and torch.rand((), generator=generator).item() < FLIP_PROBABILITY

    def placed(content: Tensor, padding: int) -> Tensor:
        canvas = content.new_full((*content.shape[:-2], size_px, size_px), padding)
        canvas[..., : rows.length, : columns.length] = content
        return canvas.flip(-1) if mirrored else canvas

    def sampled(cells: Tensor, padding: int) -> Tensor:
        chosen_rows = cells.index_select(0, rows.nearest(cells.shape[0]))
        own_columns = columns.nearest(cells.shape[1]).expand(rows.length, -1)
        # Along rows of bytes gather is four times as fast as index_select.
        return placed(chosen_rows.gather(1, own_columns), padding)

    crop = image[None, :, rows.start : rows.stop, columns.start : columns.stop]
    size = (rows.length, columns.length)
    return CropView(
        image=placed(_resized(crop, size)[0], 0),
        valid=placed(torch.ones(size, dtype=torch.bool), False),
        labels={
            name: LabelMaps(
                sampled(maps.mask, IGNORE),
                None if maps.confidence is None else sampled(maps.confidence, 0),
            )
            for name, maps in (labels or {}).items()
        },
    )


def _random_long_side(
    long_side: int, scale: tuple[float, float], generator: Generator
) -> tuple[int, int]:
    """A random new length of the long side, and its length."""
    low, high = scale
    return _random_integer(int(low * long_side), int(high * long_side), generator), long_side


def _random_short_side(
    height: int, width: int, short_side_px: int, scale: tuple[float, float], generator: Generator
) -> tuple[int, int]:
    """A random new length of the short side, or of the long one if it bounds the size, and its own.

    As mmsegmentation's `Resize(img_scale=(4 * P, P), ratio_range=scale)`.
    """
    low, high = scale
    drawn = low + (high - low) * torch.rand((), generator=generator).item()
    sides = ((min(height, width), short_side_px), (max(height, width), MAX_ASPECT * short_side_px))
    news = [(int(length * drawn), side) for side, length in sides]
    return min(news, key=lambda pair: pair[0] / pair[1])


def _resized(crop: Tensor, size: tuple[int, int]) -> Tensor:
    """A crop (1, 3, h, w) uint8 at another size, bilinear."""
    if size == (1, 1):  # torch cannot shrink uint8 to a single pixel
        shrunk = interpolate(crop.float(), size, mode="bilinear", antialias=True)
        return shrunk.round().to(crop.dtype)
    return interpolate(crop, size, mode="bilinear", antialias=True)


def _random_span(size: int, new_size: int, crop_px: int, generator: Generator) -> _Span:
    """A random crop of an axis that is resized from `size` to `new_size`, in source pixels."""
    new_size = max(new_size, 1)  # a thin image keeps at least one row
    length = min(new_size, crop_px)
    offset = _random_integer(0, new_size - length, generator)
    start = min(round(offset * size / new_size), size - 1)
    stop = max(round((offset + length) * size / new_size), start + 1)
    return _Span(size, start, stop, length)


def _random_integer(low: int, high: int, generator: Generator) -> int:
    """A uniform integer, both bounds included."""
    return int(torch.randint(low, high + 1, (), generator=generator))
