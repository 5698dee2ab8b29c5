"""Renders scenes of objects on grounds and backdrops, with exact masks, in two domains.

`id` is the target domain, which the user wants segmented: natural scenes, photographed by one
camera at dusk. `web` is out of distribution: any medium, colours, pose and background.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.sandbox.world import cameras, painter
from stages.sandbox.world.captions import caption
from stages.sandbox.world.layout import Domain, arrange
from stages.sandbox.world.looks import PHOTO, WEB_MEDIA
from stages.sandbox.world.names import NAMES, TARGETS

Labels = npt.NDArray[np.uint8]

_CAMERA_PX = 128
_WEB_PX = (96, 320)


@dataclass(frozen=True)
class Scene:
    """A picture with its ground truth.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        names: (H, W) uint8, indices into `names.NAMES`.
        instances: (H, W) uint8, 0 = stuff, then 1, 2, ... from back to front.
        caption: Its caption on a web page.
        tags: The visible names, in the order of `NAMES`.
        medium: "photo", "poster", ...
    """

    image: npt.NDArray[np.uint8]
    names: Labels
    instances: Labels
    caption: str
    tags: tuple[str, ...]
    medium: str

    @property
    def classes(self) -> Labels:
        """(H, W) uint8 in the target vocabulary: 0 = background, 1 to 8 = `names.TARGETS`."""
        return np.where(self.names < len(TARGETS), self.names + 1, 0).astype(np.uint8)


def render(
    domain: Domain,
    seed: int,
    index: int,
    *,
    long_side_px: int | None = None,
    spurious_cues: bool = False,
) -> Scene:
    """Draws one scene; the same arguments give the same scene in any order and process.

    Args:
        domain: `id`, or `web`.
        seed: Seed of the world.
        index: Number of the scene.
        long_side_px: Longer side of the image. Default: 128 in `id`, 96 to 320 in `web`.
        spurious_cues: Whether boats, and no other targets, are on water, and buses likewise on
            road, so that the ground predicts the object.

    Returns:
        The scene; its shorter side is at least half of the longer one.
    """
    rng = np.random.default_rng([("id", "web").index(domain), seed, index])
    width, height = _size(domain, long_side_px, rng)
    setting, placements = arrange(domain, width, height, rng, spurious_cues=spurious_cues)
    medium = PHOTO if domain == "id" else WEB_MEDIA[rng.integers(len(WEB_MEDIA))]

    parts = painter.outline(setting, placements, width, height, rng)
    image = painter.colour(parts, setting, placements, medium, rng)
    pixels = (cameras.dusk_camera if domain == "id" else cameras.web)(image, rng)

    instances, is_near = painter.instances(parts)
    things = [NAMES.index(one.name) for one in placements]
    stuff = np.where(is_near, NAMES.index(setting.near), NAMES.index(setting.far))
    names = np.where(instances, np.array([0, *things])[instances], stuff).astype(np.uint8)
    shown = np.bincount(names.ravel(), minlength=len(NAMES)) > 0.002 * names.size
    tags = tuple(name for name, is_shown in zip(NAMES, shown, strict=True) if is_shown)
    text = caption(medium.word, tags, rng)
    return Scene(pixels, names, instances, text, tags, medium.word)


def _size(domain: Domain, long_side_px: int | None, rng: np.random.Generator) -> tuple[int, int]:
    """Draws width and height: those of the camera, or one of many formats in the web."""
    if domain == "id":
        long, aspect, upright = _CAMERA_PX, 4 / 3, rng.random() < 0.2
    else:
        least, most = _WEB_PX
        long = round(least * (most / least) ** rng.random())
        aspect, upright = rng.choice((1, 5 / 4, 4 / 3, 3 / 2, 16 / 9)), rng.random() < 0.5
    long = long_side_px or long
    short = round(long / aspect)
    return (short, long) if upright else (long, short)
