"""Textures of stuff: for each name, the share of its second colour at each pixel."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

Grain = npt.NDArray[np.float32]
Grid = npt.NDArray[np.float32]


def noise(rng: np.random.Generator, shape: tuple[int, int], columns: int, rows: int) -> Grain:
    """Smooth random noise.

    Args:
        rng: Draws the bumps.
        shape: H, W.
        columns: Bumps across.
        rows: Bumps down.

    Returns:
        (H, W) float32 around 0.5, mostly within 0 to 1.
    """
    bumps = Image.fromarray(rng.random((rows, columns), dtype=np.float32))
    return np.asarray(bumps.resize(shape[::-1], Image.Resampling.BICUBIC))


def _sky(rng: np.random.Generator, x: Grid, y: Grid) -> Grain:
    clouds = np.clip(4 * noise(rng, x.shape, 4, 7) - 2.4, 0, 1)
    return np.asarray((0.6 * y + clouds).clip(0, 1))


def _grass(rng: np.random.Generator, x: Grid, y: Grid) -> Grain:
    return 0.7 * noise(rng, x.shape, 48, 16) + 0.3 * noise(rng, x.shape, 5, 5)


def _road(rng: np.random.Generator, x: Grid, y: Grid) -> Grain:
    middle, dashes = rng.uniform(0.75, 0.9), (5 * x + rng.random()) % 1 < 0.55
    line = (np.abs(y - middle) < 0.012) & dashes
    return np.where(line, 1, 0.25 * noise(rng, x.shape, 64, 64))


def _sand(rng: np.random.Generator, x: Grid, y: Grid) -> Grain:
    ripples: Grain = np.sin(60 * y + 9 * noise(rng, x.shape, 4, 3))
    return 0.35 + 0.2 * ripples + 0.4 * (noise(rng, x.shape, 64, 64) - 0.5)


def _water(rng: np.random.Generator, x: Grid, y: Grid) -> Grain:
    waves: Grain = np.sin(70 * y + 6 * noise(rng, x.shape, 8, 5))
    return (1.4 * waves - 0.5).clip(0, 1)


def _snow(rng: np.random.Generator, x: Grid, y: Grid) -> Grain:
    return noise(rng, x.shape, 4, 6)


def _wall(rng: np.random.Generator, x: Grid, y: Grid) -> Grain:
    courses = rng.uniform(9, 15) * y
    bricks = 0.45 * courses.max() * x + 0.5 * (np.floor(courses) % 2)
    joints = (courses % 1 < 0.16) | (bricks % 1 < 0.09)
    return np.where(joints, 1, 0.3 * noise(rng, x.shape, 12, 16))


def _paper(rng: np.random.Generator, x: Grid, y: Grid) -> Grain:
    lines = (rng.uniform(8, 14) * y % 1 < 0.07) & bool(rng.random() < 0.5)
    return np.where(lines, 1, 0.15 * noise(rng, x.shape, 40, 40))


def _pattern(rng: np.random.Generator, x: Grid, y: Grid) -> Grain:
    count, angle = rng.uniform(4, 9), rng.uniform(0, np.pi)
    u = count * (x * np.cos(angle) + y * np.sin(angle))
    v = count * (y * np.cos(angle) - x * np.sin(angle))
    stripes, checks = u % 1 < 0.5, (np.floor(u) + np.floor(v)) % 2
    dots = (u % 1 - 0.5) ** 2 + (v % 1 - 0.5) ** 2 < 0.08
    return np.asarray((stripes, checks, dots)[rng.integers(3)], dtype=np.float32)


_GRAINS: dict[str, Callable[[np.random.Generator, Grid, Grid], Grain]] = {
    "sky": _sky,
    "grass": _grass,
    "road": _road,
    "sand": _sand,
    "water": _water,
    "snow": _snow,
    "wall": _wall,
    "paper": _paper,
    "pattern": _pattern,
}


def grain(stuff: str, rng: np.random.Generator, shape: tuple[int, int]) -> Grain:
    """Share of its second colour that a stuff shows at each pixel.

    Args:
        stuff: One of `names.STUFF`.
        rng: Draws irregularities.
        shape: H, W.

    Returns:
        (H, W) float, mostly within 0 to 1.
    """
    height, width = shape
    rows, columns = np.mgrid[:height, :width].astype(np.float32) / max(shape)
    return _GRAINS[stuff](rng, columns, rows)
