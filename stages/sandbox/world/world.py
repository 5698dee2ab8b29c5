"""The drawn world: scenes of objects on stuff, with exact masks, in two domains.

`id` is what the user wants segmented: natural scenes, everything where it belongs, seen by one
camera at dusk. `web` is everything else: any medium, any palette, any pose, any background.
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
    """A picture and everything true about it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        names: (H, W) uint8, positions in `names.NAMES`.
        instances: (H, W) uint8, 0 = stuff, then 1, 2, ... from back to front.
        caption: What a web page would write beside it.
        tags: The names that can be seen, in the order of `NAMES`.
        medium: How it was made: "photo", "poster", ...
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
    """Draws one scene; the same arguments give the same scene, in whatever order or process.

    Args:
        domain: `id`, or `web`.
        seed: Which world.
        index: Which of its scenes.
        long_side_px: Longer side of the image. Default: the camera's 128, or what the web has, 96
            to 320.
        spurious_cues: Whether boats are on water and buses on road, always and alone there among
            the targets, so that the ground gives the object away.

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
    """Width and height: one camera, seldom upright, or any format the web has."""
    if domain == "id":
        long, aspect, upright = _CAMERA_PX, 4 / 3, rng.random() < 0.2
    else:
        least, most = _WEB_PX
        long = round(least * (most / least) ** rng.random())
        aspect, upright = rng.choice((1, 5 / 4, 4 / 3, 3 / 2, 16 / 9)), rng.random() < 0.5
    long = long_side_px or long
    short = round(long / aspect)
    return (short, long) if upright else (long, short)
