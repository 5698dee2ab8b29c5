"""Training data of the tiny SAM: web scenes, their segments, and prompts for some segments."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from stages.sandbox.world.names import NAMES
from stages.sandbox.world.world import Scene, render

PADDING = 0
"""Value of padding in a map of segments."""

_STUFF = 255 - len(NAMES)  # stuff segments are numbered from here on, objects from 1
_MIN_OBJECT_PX = 20  # a smaller visible part of an object is noise
_OBJECT_SHARE = 0.75  # of the prompts; the others are for stuff


class Prompts(NamedTuple):
    """An image, or a batch of images, with prompts.

    Attributes:
        image: (3, S, S) float32, as `Sam.preprocess` returns it.
        segments: (S, S) uint8, 0 = padding, else the visible object or stuff.
        points: (P, 2) float32, x and y of a pixel.
        boxes: (Q, 4) float32, x and y of two corners, with noise.
        wanted: (P + Q,) uint8, the segment that each prompt is for, points first.
    """

    image: Tensor
    segments: Tensor
    points: Tensor
    boxes: Tensor
    wanted: Tensor


def fit(scene: Scene, long_side_px: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Scales image, (H, W, 3), and instances, (H, W), to a long side like segment_anything."""
    image: npt.NDArray[np.uint8] = ResizeLongestSide(long_side_px).apply_image(scene.image)
    return image, _resized(scene.instances, image.shape[:2])


def segments(scene: Scene, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """The segment of each pixel, (H, W) uint8: its object, or the stuff of one name.

    Args:
        scene: The scene.
        shape: H and W.
    """
    stuff = scene.names + np.uint8(_STUFF)
    return _resized(np.where(scene.instances, scene.instances, stuff), shape)


def _resized(labels: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    height, width = shape
    return np.asarray(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))


class WebPrompts(Dataset[Prompts]):
    """Web scenes with prompts, rendered on access.

    Args:
        model: The SAM, for its image size and pixel statistics.
        seed: Seed of the world.
        first: Index of the first scene.
        count: Number of scenes.
        points: P, points for each scene.
        boxes: Q, boxes for each scene.
    """

    def __init__(
        self, model: Any, seed: int, first: int, count: int, points: int, boxes: int
    ) -> None:
        self.size_px: int = model.image_encoder.img_size
        self.mean, self.std = model.pixel_mean.clone(), model.pixel_std.clone()
        self.seed, self.first, self.count = seed, first, count
        self.points, self.boxes = points, boxes

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, item: int) -> Prompts:
        index = self.first + item
        scene = render("web", self.seed, index)
        rng = np.random.default_rng([self.seed, index, self.size_px])
        image, _ = fit(scene, self.size_px)
        shown = segments(scene, image.shape[:2])
        if rng.random() < 0.5:
            image, shown = image[:, ::-1], shown[:, ::-1]
        wanted = _choose(shown, self.points + self.boxes, rng)
        points = np.array([_pixel(shown == one, rng) for one in wanted[: self.points]])
        boxes = np.array([_box(shown == one, rng) for one in wanted[self.points :]])
        height, width = shown.shape
        room = (0, self.size_px - width, 0, self.size_px - height)
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)
        return Prompts(
            functional.pad((pixels - self.mean) / self.std, room),
            functional.pad(torch.from_numpy(shown.copy()), room, value=PADDING),
            torch.from_numpy(points.astype(np.float32).reshape(-1, 2)),
            torch.from_numpy(boxes.astype(np.float32).reshape(-1, 4)),
            torch.from_numpy(wanted),
        )


def _choose(
    shown: npt.NDArray[np.uint8], count: int, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Draws segments to prompt for; objects of all sizes are equally likely."""
    area = np.bincount(shown.ravel(), minlength=256)
    objects = np.flatnonzero(area[:_STUFF] >= _MIN_OBJECT_PX)
    stuff = _STUFF + np.flatnonzero(area[_STUFF:] >= _MIN_OBJECT_PX)
    kinds = [(objects, stuff)[rng.random() >= _OBJECT_SHARE] for _ in range(count)]
    chosen = [rng.choice(kind if len(kind) else np.flatnonzero(area)) for kind in kinds]
    return np.array(chosen, dtype=np.uint8)


def _pixel(mask: npt.NDArray[np.bool_], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draws a pixel of the mask: x and y."""
    inside = np.flatnonzero(mask)
    return np.array(np.divmod(inside[rng.integers(len(inside))], mask.shape[1])[::-1])


def _box(mask: npt.NDArray[np.bool_], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """X and y of the corners of the mask's box, with noise of a twentieth of its sides."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    corners = np.array([columns[0], rows[0], columns[-1], rows[-1]])
    sides = np.tile([columns[-1] - columns[0], rows[-1] - rows[0]], 2)
    return np.asarray(corners + rng.normal(0, 0.05, 4) * sides)
