"""Draws scenes: part ids on a fine canvas first, so that masks are exact, then their colours."""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from stages.sandbox.world.drawn_distractors import DRAWN_DISTRACTORS
from stages.sandbox.world.drawn_targets import DRAWN_TARGETS
from stages.sandbox.world.layout import Placement, Setting
from stages.sandbox.world.looks import Medium, object_colours, stuff_colours
from stages.sandbox.world.shapes import ROLES
from stages.sandbox.world.textures import grain, noise

Parts = npt.NDArray[np.uint8]
Pixels = npt.NDArray[np.float32]

_DRAWINGS = DRAWN_TARGETS | DRAWN_DISTRACTORS
_SMOOTH = 2  # canvas pixels a side for each image pixel, so that edges come out anti-aliased
_CAMOUFLAGE = 0.2  # an object whose colour differs less from its ground would be invisible
_FAR, _NEAR, _FIRST = 0, 1, 2  # part ids: the two stuffs, then each object's roles in a row


def outline(
    setting: Setting,
    placements: list[Placement],
    width: int,
    height: int,
    rng: np.random.Generator,
) -> Parts:
    """Draws the part that is visible at each pixel.

    Args:
        setting: The stuff.
        placements: The objects from back to front, 25 at most.
        width: Of the image.
        height: Of the image.
        rng: Draws the shape of the horizon.

    Returns:
        (2H, 2W) uint8 of part ids, for the functions of this file.
    """
    canvas = Image.new("L", (_SMOOTH * width, _SMOOTH * height), _FAR)
    draw = ImageDraw.Draw(canvas)
    slope, bend, phase = rng.uniform(-0.04, 0.04), rng.uniform(0, 0.03), rng.uniform(0, 6)
    across = np.linspace(0, 1, 24)
    line = setting.horizon + bool(setting.horizon) * (
        slope * (across - 0.5) + bend * np.sin(phase + 5 * across)
    )
    ridge = [(x * canvas.width, y * canvas.height) for x, y in zip(across, line, strict=True)]
    draw.polygon([*ridge, (canvas.width, canvas.height), (0, canvas.height)], fill=_NEAR)
    for order, one in enumerate(placements):
        drawings = _DRAWINGS[one.name]
        for part in drawings[int(one.variant * len(drawings))]:
            corners = _SMOOTH * (part.corners @ one.pose.T * one.size_px + one.centre)
            role = _FIRST + order * len(ROLES) + ROLES.index(part.role)
            draw.polygon([*map(tuple, corners)], fill=role)
    return np.asarray(canvas)


def instances(parts: Parts) -> tuple[Parts, npt.NDArray[np.bool_]]:
    """The visible object, (H, W) uint8, 0 = none; and whether stuff is the near one, (H, W)."""
    ids = parts[::_SMOOTH, ::_SMOOTH]
    objects = np.where(ids < _FIRST, 0, (ids - _FIRST) // len(ROLES) + 1)
    return objects.astype(np.uint8), ids == _NEAR


def colour(
    parts: Parts,
    setting: Setting,
    placements: list[Placement],
    medium: Medium,
    rng: np.random.Generator,
) -> Image.Image:
    """Colours the parts.

    Args:
        parts: From `outline`.
        setting: The stuff.
        placements: The objects.
        medium: The medium of the picture.
        rng: Draws colours, textures and light.

    Returns:
        RGB, (H, W).
    """
    natural = [stuff_colours(name, rng) for name in (setting.far, setting.near)]
    natural += [object_colours(one.name, rng) for one in placements]
    colours = np.clip(medium.recolour(np.concatenate(natural), rng), 0, 1).astype(np.float32)
    _contrast_with(colours[4:].reshape(-1, len(ROLES), 3), ground=colours[2])
    grains, flat = colours[:4].reshape(2, 2, 3), np.concatenate([colours[[0, 2]], colours[4:]])

    def smooth(picture: Image.Image) -> Pixels:
        return np.asarray(picture.reduce(_SMOOTH), dtype=np.float32) / np.float32(255)

    picture = smooth(Image.fromarray((255 * flat).astype(np.uint8)[parts]))
    for stuff, name in enumerate((setting.far, setting.near)):
        cover = smooth(Image.fromarray(np.where(parts == stuff, np.uint8(255), np.uint8(0))))
        strength = max(medium.grain, float(name == "pattern"))
        mix = strength * cover * grain(name, rng, cover.shape)
        picture += mix[..., None] * (grains[stuff, 1] - grains[stuff, 0])
    light = 1 + medium.grain * (0.4 * noise(rng, cover.shape, 3, 3) - 0.2)
    picture *= light[..., None]
    if rng.random() < medium.outline:
        thickness = rng.choice((0.007, 0.015)) * max(cover.shape)
        ink = smooth(_edges(parts, thickness))[..., None]
        picture *= 1 - 0.9 * ink
    return Image.fromarray((255 * picture.clip(0, 1)).astype(np.uint8))


def _contrast_with(objects: Pixels, ground: Pixels) -> None:
    """Changes the brightness, in place, of objects whose main colour resembles the ground.

    Args:
        objects: (N, len(ROLES), 3) float in [0, 1].
        ground: (3,) float in [0, 1].
    """
    for colours in objects:
        if np.abs(colours[0] - ground).max() < _CAMOUFLAGE:
            colours += np.float32(1.5 * _CAMOUFLAGE if ground.mean() < 0.5 else -1.5 * _CAMOUFLAGE)
            colours.clip(0, 1, out=colours)


def _edges(parts: Parts, thickness_px: float) -> Image.Image:
    """Lines between parts: 255 on a line, 0 elsewhere; thickness in image pixels."""
    meets = np.zeros(parts.shape, dtype=bool)
    across, down = parts[:, 1:] != parts[:, :-1], parts[1:] != parts[:-1]
    for half in (slice(1, None), slice(-1)):
        meets[:, half] |= across
        meets[half] |= down
    edges = Image.fromarray(meets.astype(np.uint8) * 255)
    widened = 2 * round((_SMOOTH * thickness_px - 2) / 2) + 1
    return edges.filter(ImageFilter.MaxFilter(widened)) if widened > 1 else edges
