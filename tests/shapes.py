"""Drawn images: a red disc and a blue box on grain, and masks of them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


def draw_shapes(folder: Path, counts: Mapping[str, int], with_masks: tuple[str, ...]) -> None:
    """Fills `<role>/images` with so many of 32 x 24 px, and `<role>/masks` with class ids."""
    rng = np.random.default_rng(0)
    for role, count in counts.items():
        for number in range(count):
            grain = rng.integers(80, 120, (24, 32, 3), dtype=np.uint8)
            image, mask = Image.fromarray(grain), Image.new("L", (32, 24))
            left, top, size = rng.integers((0, 0, 8), (8, 8, 12)).tolist()
            disc, box = (left, top, left + size, top + size), (left + 14, top, 31, top + size)
            for canvas, colors in ((image, ("red", "blue")), (mask, (1, 2))):
                pen = ImageDraw.Draw(canvas)
                pen.ellipse(disc, fill=colors[0])
                pen.rectangle(box, fill=colors[1])
            kinds = {"images": image, "masks": mask} if role in with_masks else {"images": image}
            for kind, picture in kinds.items():
                path = folder / role / kind / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                picture.save(path)
