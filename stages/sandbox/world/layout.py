"""Layout of a scene: its ground and backdrop, and the objects placed into it."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from stages.sandbox.world.names import DISTRACTORS, TARGETS

Domain = Literal["id", "web"]

_HOMES = {
    "road": ("car", "bus", "truck", "person", "dog"),
    "water": ("boat", "fish", "bird"),
    "grass": (
        *("house", "tree", "flower", "cat", "dog", "car"),
        *("sheep", "fox", "tent", "mushroom", "person", "bird"),
    ),
    "sand": ("cactus", "umbrella", "tent", "person", "dog", "cat", "bus", "boat", "flower"),
    "snow": ("tree", "house", "fox", "person", "dog", "bird", "car", "cat", "truck"),
}
"""Names that belong on each ground."""

_AIRBORNE = ("balloon", "bird", "rocket")

SPURIOUS_CUES = {"boat": "water", "bus": "road"}
"""Targets, each with the ground that predicts it if spurious cues are switched on."""

_GROUNDS = tuple(_HOMES)
_BACKDROPS = ("paper", "pattern", "wall", *_GROUNDS)

_SIZES = {"house": 1.5, "tree": 1.5, "bus": 1.4, "truck": 1.3, "boat": 1.3, "car": 1.1}
_SIZES |= {"flower": 0.75, "mushroom": 0.7, "bird": 0.75, "cat": 0.8, "fish": 0.7}
"""Sizes relative to a person, where not 1; less extreme than real ones, so all are visible."""


@dataclass(frozen=True)
class Setting:
    """The ground and the backdrop of a scene.

    Attributes:
        far: Stuff above the horizon.
        near: Stuff below it.
        horizon: Distance from the top as a share of the image's height; 0 if all is `near`.
    """

    far: str
    near: str
    horizon: float


@dataclass(frozen=True)
class Placement:
    """One object in a scene.

    Attributes:
        name: Name of the object.
        variant: Which of its drawings, as a share of their number.
        centre: (2,) x and y in pixels.
        size_px: Half its longer side.
        pose: (2, 2) matrix that turns, flips and stretches the drawing.
    """

    name: str
    variant: float
    centre: npt.NDArray[np.float64]
    size_px: float
    pose: npt.NDArray[np.float64]


def _setting(domain: Domain, rng: np.random.Generator) -> Setting:
    if domain == "web" and rng.random() < 0.45:
        backdrop = str(rng.choice(_BACKDROPS))
        return Setting(backdrop, backdrop, 0.0)
    far = "sky" if domain == "id" or rng.random() < 0.7 else str(rng.choice(_BACKDROPS[:3]))
    return Setting(far, str(rng.choice(_GROUNDS)), rng.uniform(0.25, 0.55))


def _targets(ground: str, spurious_cues: bool) -> tuple[str, ...]:
    """The targets that may be on a ground."""
    if not spurious_cues:
        return TARGETS
    given_away = tuple(name for name, cue in SPURIOUS_CUES.items() if cue == ground)
    return given_away or tuple(name for name in TARGETS if name not in SPURIOUS_CUES)


def _name(setting: Setting, at_home: float, spurious_cues: bool, rng: np.random.Generator) -> str:
    """Draws a target two times in three; it belongs here with probability `at_home` or more."""
    is_target = rng.random() < 0.66
    names = _targets(setting.near, spurious_cues) if is_target else DISTRACTORS
    home = _HOMES.get(setting.near, ()) + (_AIRBORNE if setting.horizon else ())
    belonging = [name for name in names if name in home]
    return str(rng.choice(belonging if belonging and rng.random() < at_home else names))


def _pose(turn: float, stretch: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    angle = np.radians(rng.uniform(-turn, turn))
    cos, sin = np.cos(angle), np.sin(angle)
    flip = rng.choice((-1, 1))
    scale = np.diag([flip * rng.uniform(stretch, 1), rng.uniform(stretch, 1)])
    return np.array([[cos, -sin], [sin, cos]]) @ scale


def _within(extent_px: int, size_px: float, rng: np.random.Generator) -> float:
    """Draws a coordinate at which three quarters of an object or more are in the picture."""
    margin = min(0.5 * size_px, 0.4 * extent_px)
    return float(rng.uniform(margin, extent_px - margin))


def _place(
    domain: Domain, setting: Setting, name: str, width: int, height: int, rng: np.random.Generator
) -> Placement:
    horizon, natural = setting.horizon * height, _SIZES.get(name, 1.0)
    foot = rng.uniform(horizon + 0.12 * (height - horizon), 1.02 * height)
    long_side = max(width, height)
    if domain == "id":
        depth = (foot - horizon) / (height - horizon)
        size_px, pose = 0.15 * long_side * natural * (0.5 + 0.8 * depth), _pose(4, 0.9, rng)
    else:
        size_px, pose = long_side * rng.uniform(0.14, 0.33) * natural**0.4, _pose(22, 0.75, rng)
    y = foot - 0.7 * size_px
    if setting.horizon and name in _AIRBORNE:
        y = max(rng.uniform(0.1, 0.9) * horizon, 0.5 * size_px)
    elif not setting.horizon:
        y = _within(height, size_px, rng)
    x = _within(width, size_px, rng)
    return Placement(name, rng.random(), np.array([x, y]), size_px, pose)


def arrange(
    domain: Domain, width: int, height: int, rng: np.random.Generator, *, spurious_cues: bool
) -> tuple[Setting, list[Placement]]:
    """Composes a scene of one to five objects that may partly hide each other.

    Args:
        domain: In `id`, objects are mostly where they belong, upright and in perspective.
        width: Of the image in pixels.
        height: Of the image in pixels.
        rng: Draws all choices.
        spurious_cues: Whether `SPURIOUS_CUES` hold without exception in both directions.

    Returns:
        The setting, and the placements from back to front.
    """
    setting, placements = _setting(domain, rng), list[Placement]()
    at_home = 0.85 if domain == "id" else 0.4
    for _ in range(rng.choice((2, 4, 6, 9))):
        name = _name(setting, at_home, spurious_cues, rng)
        new = _place(domain, setting, name, width, height, rng)
        if len(placements) < 5 and all(
            np.linalg.norm(new.centre - old.centre) > 0.85 * (new.size_px + old.size_px)
            for old in placements
        ):
            placements.append(new)
    return setting, sorted(placements, key=lambda one: float(one.centre[1]) + one.size_px)
