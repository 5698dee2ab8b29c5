"""Training data of the tiny CLIP: prompts, and crops of web scenes with a name for each pixel."""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from stages.sandbox.world.captions import TEMPLATES, caption
from stages.sandbox.world.looks import WEB_MEDIA
from stages.sandbox.world.names import DISTRACTORS, NAMES, SYNONYMS, TARGETS
from stages.sandbox.world.world import Scene, render

OBJECTS = len(TARGETS + DISTRACTORS)
"""Indices into `NAMES` below this are objects, the others stuff."""


def prompts(name: str) -> list[str]:
    """Fills every template with every word for the name."""
    return [template.format(word) for word in SYNONYMS[name] for template in TEMPLATES]


def random_caption(rng: np.random.Generator) -> tuple[str, list[int]]:
    """Draws a caption without a scene, and the indices into `NAMES` of what it mentions."""
    objects = sorted(rng.choice(OBJECTS, rng.integers(1, 4), replace=False).tolist())
    stuff = sorted(rng.integers(OBJECTS, len(NAMES), rng.integers(0, 2)).tolist())
    medium = WEB_MEDIA[rng.integers(len(WEB_MEDIA))].word
    mentioned = objects + stuff
    return caption(medium, [NAMES[i] for i in mentioned], rng), mentioned


def normalised(image: np.ndarray[Any, np.dtype[np.uint8]]) -> Tensor:
    """Normalises an image, (H, W, 3) uint8, with CLIP's mean and variance: (3, H, W) float32."""
    pixels = torch.from_numpy(image.astype(np.float32) / 255)
    mean, std = torch.tensor(OPENAI_DATASET_MEAN), torch.tensor(OPENAI_DATASET_STD)
    return ((pixels - mean) / std).permute(2, 0, 1)


@lru_cache(maxsize=1)
def _scene(seed: int, index: int) -> Scene:
    """Renders a scene at a random size, before it is scaled."""
    rng = np.random.default_rng([seed, index])
    return render("web", seed, index, long_side_px=int(rng.integers(96, 192)))


class WebCrops(Dataset[tuple[Tensor, Tensor, str]]):
    """Square crops of web scenes, two from each scene, rendered on access.

    An item is the image, (3, S, S) float32, indices into `NAMES`, (S/4, S/4) int64, and a caption.

    Args:
        seed: Seed of the world.
        first: Index of the first crop; crops 2i and 2i + 1 are of scene i.
        count: Number of crops.
        size_px: S, a multiple of 8.
    """

    def __init__(self, seed: int, first: int, count: int, size_px: int) -> None:
        self.seed, self.first, self.count, self.size_px = seed, first, count, size_px

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, item: int) -> tuple[Tensor, Tensor, str]:
        index = self.first + item
        scene = _scene(self.seed, index // 2)
        rng = np.random.default_rng([self.seed, index, self.size_px])
        image, names = _crop(scene, self.size_px, rng)
        shown = np.flatnonzero(np.bincount(names.ravel(), minlength=len(NAMES)) > 0.01 * names.size)
        text = caption(scene.medium, [NAMES[i] for i in shown], rng)
        return normalised(image), torch.from_numpy(names[2::4, 2::4].astype(np.int64)), text


def _crop(scene: Scene, size_px: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """Crops a flipped, scaled window; three in five are placed around an object."""
    height, width = scene.names.shape
    scale = max(rng.uniform(96, 166) / max(height, width), size_px / min(height, width))
    size = round(scale * width), round(scale * height)
    image = np.asarray(Image.fromarray(scene.image).resize(size, Image.Resampling.BILINEAR))
    names = np.asarray(Image.fromarray(scene.names).resize(size, Image.Resampling.NEAREST))
    if rng.random() < 0.5:
        image, names = image[:, ::-1], names[:, ::-1]
    room = np.array(names.shape) - size_px
    corner = rng.integers(0, room + 1)
    objects = np.argwhere(names < OBJECTS)
    if len(objects) and rng.random() < 0.6:
        corner = np.clip(rng.choice(objects) - rng.integers(size_px, size=2), 0, room)
    window = tuple(slice(start, start + size_px) for start in corner)
    return image[window].copy(), names[window].copy()
