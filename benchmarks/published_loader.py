"""Crops as the published loaders make them: Pillow and torchvision, image by image, on the CPU.

Written from the description of UniMatch's loader (arXiv 2208.09910, `dataset/semi.py` and
`dataset/transform.py`), which PrevMatch and SemiOVS share: image and label file are decoded once an
item, resized as a whole, padded, cropped, mirrored; the weak view and both strong ones are made
from that crop. Unlabeled images have label files too, of which only the padding is read.

The random numbers are handed in, so that these crops are those of `stages/train/data/crops.py`,
and cost nothing here. The jitter's order is fixed as it is there; the published one is random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Generator, Tensor
from torchvision.transforms import functional, transforms

from pipeline.config.vocabulary import IGNORE
from stages.models.segmenters.normalization import IMAGENET_MEAN, IMAGENET_STD
from stages.train.data.colors import (
    BLUR_PROBABILITY,
    GRAYSCALE_PROBABILITY,
    JITTER_PROBABILITY,
    SIGMA_PX,
)
from stages.train.data.crops import TrainImage
from stages.train.data.geometry import FLIP_PROBABILITY
from stages.train.step.pasting import cutmix_box

Crop = tuple[Image.Image, Image.Image]
"""An image and its labels."""
_PADDING = 254
"""The value of padding in the label file of an unlabeled image."""
_VIEWS = 3

_normalized = transforms.Compose(
    [transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
)


@dataclass(frozen=True)
class Place:
    """Which crop of an image.

    Attributes:
        size: Width and height of the whole image once it is resized.
        corner: Left and top of the crop.
        mirrored: Whether it is flipped.
    """

    size: tuple[int, int]
    corner: tuple[int, int]
    mirrored: bool


def random_place(
    size: tuple[int, int], crop_px: int, scale: tuple[float, float], generator: Generator
) -> Place:
    """The place that `stages.train.data.geometry.random_view` draws with the same generator.

    Args:
        size: Width and height of the image.
        crop_px: Side S.
        scale: Bounds of the long side's new length over its own.
        generator: Source of randomness.
    """
    long_side = max(size)
    new = _integer(int(scale[0] * long_side), int(scale[1] * long_side), generator)
    new_width, new_height = (max(1, int(side * new / long_side + 0.5)) for side in size)
    top = _integer(0, max(new_height - crop_px, 0), generator)
    left = _integer(0, max(new_width - crop_px, 0), generator)
    mirrored = torch.rand((), generator=generator).item() < FLIP_PROBABILITY
    return Place((new_width, new_height), (left, top), mirrored)


@dataclass(frozen=True)
class PublishedLoader:
    """Makes items.

    Attributes:
        crop_px: Side S.
        decodes_each_view: Whether each view is decoded and moved for itself, which the published
            code does not do.
        generator: Of the boxes.
    """

    crop_px: int
    decodes_each_view: bool
    generator: Generator

    def labeled(self, image: TrainImage, place: Place) -> list[Tensor]:
        """The weak view (3, S, S) and the mask (S, S) of a labeled image."""
        pixels, mask = self._crop(image, place, IGNORE)
        return [_normalized(pixels), _ids(mask)]

    def others(
        self, image: TrainImage, place: Place, colours: Sequence[Sequence[float]]
    ) -> list[Tensor]:
        """Three views (3, S, S), the labels (S, S), where they are padding, and two boxes.

        Args:
            image: The image, with a label file.
            place: Which crop.
            colours: The eight numbers in [0, 1) of each strong view, as of `photometric`.
        """
        crops = [self._crop(image, place, _PADDING)] * _VIEWS
        if self.decodes_each_view:
            crops = [crops[0], *(self._crop(image, place, _PADDING) for _ in range(_VIEWS - 1))]
        (weak, labels), *others = crops
        strong = [_strong(pixels, own) for (pixels, _), own in zip(others, colours, strict=True)]
        mask = _ids(labels)
        padding = torch.where(mask == _PADDING, IGNORE, 0)
        boxes = [cutmix_box(self.crop_px, self.generator) for _ in strong]
        return [*map(_normalized, (weak, *strong)), mask, padding, *boxes]

    def _crop(self, image: TrainImage, place: Place, padding: int) -> Crop:
        assert image.mask_uri is not None, "the published loaders read a label file of every image"
        pixels = Image.open(image.uri).convert("RGB")
        labels = Image.fromarray(np.array(Image.open(image.mask_uri)))
        pixels = pixels.resize(place.size, Image.Resampling.BILINEAR)
        labels = labels.resize(place.size, Image.Resampling.NEAREST)
        missing = (0, 0, *(max(self.crop_px - side, 0) for side in place.size))
        pixels = ImageOps.expand(pixels, border=missing, fill=0)
        labels = ImageOps.expand(labels, border=missing, fill=padding)
        left, top = place.corner
        box = (left, top, left + self.crop_px, top + self.crop_px)
        pixels, labels = pixels.crop(box), labels.crop(box)
        if place.mirrored:
            return ImageOps.mirror(pixels), ImageOps.mirror(labels)
        return pixels, labels


def _strong(pixels: Image.Image, numbers: Sequence[float]) -> Image.Image:
    jitter, brightness, contrast, saturation, hue, drop, soften, sigma = numbers
    view = pixels.copy()
    if jitter < JITTER_PROBABILITY:
        view = functional.adjust_brightness(view, 0.5 + brightness)
        view = functional.adjust_contrast(view, 0.5 + contrast)
        view = functional.adjust_saturation(view, 0.5 + saturation)
        view = functional.adjust_hue(view, 0.5 * hue - 0.25)
    if drop < GRAYSCALE_PROBABILITY:
        view = functional.rgb_to_grayscale(view, num_output_channels=3)
    if soften < BLUR_PROBABILITY:
        low, high = SIGMA_PX
        view = view.filter(ImageFilter.GaussianBlur(radius=low + (high - low) * sigma))
    return view


def _ids(labels: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(labels)).long()


def _integer(low: int, high: int, generator: Generator) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator))
