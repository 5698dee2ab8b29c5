"""Shapes that objects are drawn with: polygons with the role of a colour instead of a colour.

Coordinates have any scale, x to the right and y **down**; corners are written as in SVG: "x,y x,y".
`drawing` centres the whole on the origin and scales its longer side to [-1, 1].
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

ROLES = (
    *("main", "second", "shade", "accent", "dark"),
    *("light", "glass", "wood", "leaf", "skin"),
)
"""Roles of colours; `shade` is a darker `main`."""


@dataclass(frozen=True)
class Part:
    """A filled polygon.

    Attributes:
        role: One of `ROLES`.
        corners: (K, 2) float, x and y of each.
    """

    role: str
    corners: npt.NDArray[np.float64]


Drawing = tuple[Part, ...]
"""Parts from back to front."""


def polygon(role: str, corners: str) -> Part:
    """A polygon with straight edges."""
    return Part(role, np.array([pair.split(",") for pair in corners.split()], dtype=float))


def box(role: str, left: float, top: float, right: float, bottom: float) -> Part:
    """An upright rectangle."""
    return polygon(role, f"{left},{top} {right},{top} {right},{bottom} {left},{bottom}")


def oval(role: str, x: float, y: float, rx: float, ry: float = 0, tilt: float = 0) -> Part:
    """An ellipse, or a circle without `ry`; `tilt` turns it clockwise, in degrees."""
    angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    across, down = rx * np.cos(angle), (ry or rx) * np.sin(angle)
    cos, sin = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
    corners = np.stack([x + across * cos - down * sin, y + across * sin + down * cos], axis=1)
    return Part(role, corners)


def curve(role: str, corners: str) -> Part:
    """A closed Catmull-Rom curve through the corners, for animals and plants."""
    now = polygon(role, corners).corners
    before, after, beyond = (np.roll(now, shift, axis=0) for shift in (1, -1, -2))
    cubic = 3 * now - before - 3 * after + beyond
    square = 2 * before - 5 * now + 4 * after - beyond
    samples = [
        now + 0.5 * t * ((after - before) + t * (square + t * cubic)) for t in (0, 0.25, 0.5, 0.75)
    ]
    return Part(role, np.stack(samples, axis=1).reshape(-1, 2))


def both_sides(*parts: Part) -> Drawing:
    """The parts and their mirror images at x = 0."""
    return parts + tuple(replace(part, corners=part.corners * [-1, 1]) for part in parts)


def moved(parts: Drawing, scale: float, x: float, y: float) -> Drawing:
    """The parts scaled about the origin, then shifted."""
    return tuple(replace(part, corners=part.corners * scale + [x, y]) for part in parts)


def wheels(radius: float, y: float, *xs: float) -> Drawing:
    """Wheels with hubs, side by side."""
    tyre_and_hub = (("dark", 1), ("light", 0.45))
    return tuple(oval(role, x, y, share * radius) for x in xs for role, share in tyre_and_hub)


def drawing(*parts: Part) -> Drawing:
    """The finished object, centred, its longer side from -1 to 1."""
    corners = np.concatenate([part.corners for part in parts])
    low, high = corners.min(axis=0), corners.max(axis=0)
    scale = 2 / float((high - low).max())
    x, y = -scale * (low + high) / 2
    return moved(parts, scale, x, y)
