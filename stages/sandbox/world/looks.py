"""Colours of objects and stuff, and the web's media that change them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import ImageColor

from stages.sandbox.world.shapes import ROLES

Colours = npt.NDArray[np.float64]

_ANY = {
    "main": "d33a2c 2f6fc0 f0c020 e8e4da 2f8f5a 8d4fa8 f08030 40b0b8",
    "second": "2f4f8f f0f0e8 c03030 e0b030 307050 703060",
    "accent": "f0c830 f08030 e04040",
    "dark": "20222a 332a28",
    "light": "f6f2e8 ffffff",
    "glass": "b8def0 8fb8d0 d8ecf4",
    "wood": "7a4a28 5c3a24 94633c",
    "leaf": "3f8f3f 2c6e38 6aa030 4c9c5c",
    "skin": "f0c8a0 c88c60 8a5a3c e0aa80",
}

_OBJECTS = {
    "bus": {"main": "d8302c f0b820 2f7f5f 2f5fb0 e86820"},
    "cat": {"main": "e89040 8a8a90 3a3438 e8e0d0 b08050", "accent": "f0a0a0 e8909a"},
    "dog": {"main": "b07840 8a5a34 e8d8b8 504440 d8a868", "second": "6a4020 3a2c28 94602e"},
    "house": {"main": "f0e0c0 d86850 e8c070 c8d8e0 b8c890", "accent": "a83c2c 6a4a3c 405060"},
    "flower": {"main": "e84868 f0a0c8 f0d030 9858c8 f07030 f4f0f4", "accent": "f0c020 7a4a20"},
    "fox": {"main": "e0702c d05c20 c8682c"},
    "sheep": {"light": "f4f0e4 e8e0d0", "dark": "302c2c 4a3c34"},
    "person": {"dark": "2a2020 5c3a20 c89040 3a2a24"},
    "fish": {"main": "f08028 50a0c8 e8c840 d85050 90b8b0"},
    "bird": {"main": "4880c0 d84838 f0c838 584a44 60a070"},
    "mushroom": {"main": "d03028 b05030 c89060"},
    "rocket": {"main": "f0f0f0 d8dce4 c0c8d0", "second": "d83030 2f5fb0"},
}

_STUFF = {
    "sky": ("5a9fe0 78b4ec 88a8d8 e89a70", "f4f8fc e8eef8"),
    "grass": ("3f7f34 5c9a3c 4a8a48", "86b850 9cc060"),
    "road": ("5c5e64 70727a 4c4c54", "f0ece0 f0d880"),
    "sand": ("dcb878 e8c890 c8a068", "f4e4b8 b88c58"),
    "water": ("2c6ca8 2f88a8 3c78c0", "9cd0e4 c0e4ec"),
    "snow": ("f4f8fc e8f0f8", "ccdcec d8e4f0"),
    "wall": ("b0604c a87858 c8a890 8c8c94", "e0d4c4 d0c8c0"),
    "paper": ("faf6ea f4ecd8 ffffff", "c8d4e4 e0d4c0"),
    "pattern": (_ANY["main"], _ANY["main"] + " f4f0e8 f0d8e0"),
}


def _pick(rng: np.random.Generator, choices: str) -> tuple[int, ...]:
    return ImageColor.getrgb("#" + rng.choice(choices.split()))


def object_colours(name: str, rng: np.random.Generator) -> Colours:
    """Draws an object's natural colours, (len(ROLES), 3) float in [0, 1]."""
    choices = _ANY | _OBJECTS.get(name, {})
    colours = {role: np.array(_pick(rng, choices[role])) for role in choices}
    colours["shade"] = 0.7 * colours["main"]
    return np.stack([colours[role] for role in ROLES]) / 255


def stuff_colours(name: str, rng: np.random.Generator) -> Colours:
    """Draws the two colours of a texture, (2, 3) float in [0, 1]."""
    first, second = (_pick(rng, choices) for choices in _STUFF[name])
    return np.array([first, second]) / 255


def _natural(colours: Colours, rng: np.random.Generator) -> Colours:
    return colours + rng.normal(0, 0.04, colours.shape)


def _odd(colours: Colours, rng: np.random.Generator) -> Colours:
    """Swaps channels and mixes a random colour into each colour."""
    return 0.6 * colours[:, rng.permutation(3)] + 0.4 * rng.random(colours.shape)


def _bold(colours: Colours, rng: np.random.Generator) -> Colours:
    """Reduces each channel to three levels, as if printed with few inks."""
    levels: Colours = np.round(2 * np.clip(1.5 * (_odd(colours, rng) - 0.5) + 0.5, 0, 1))
    return levels / 2


def _grey(colours: Colours, rng: np.random.Generator) -> Colours:
    tint = rng.uniform(0.85, 1, 3)
    spread = 1.2 * colours - 0.1 + rng.normal(0, 0.16, (len(colours), 1))
    luminance: Colours = spread @ np.array([[0.3], [0.59], [0.11]])
    return luminance * tint


def _pale(colours: Colours, rng: np.random.Generator) -> Colours:
    return 1 - rng.uniform(0.05, 0.35) * (1 - colours)


@dataclass(frozen=True)
class Medium:
    """A technique that pictures are made with.

    Attributes:
        word: Its name in captions.
        recolour: Changes natural colours, (K, 3), to those of the medium.
        grain: Strength of textures, light and shadow, in [0, 1].
        outline: Probability that edges are drawn in ink.
    """

    word: str
    recolour: Callable[[Colours, np.random.Generator], Colours]
    grain: float
    outline: float


PHOTO = Medium("photo", _natural, grain=1.0, outline=0.0)

WEB_MEDIA = (
    PHOTO,
    Medium("painting", _natural, grain=1.0, outline=0.2),
    Medium("black and white photo", _grey, grain=0.6, outline=0.0),
    Medium("comic", _odd, grain=0.4, outline=0.8),
    Medium("poster", _bold, grain=0.0, outline=0.5),
    Medium("line drawing", _pale, grain=0.2, outline=1.0),
)
