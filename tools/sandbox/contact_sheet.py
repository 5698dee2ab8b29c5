"""Draws pages of sample scenes: `python -m tools.sandbox.contact_sheet docs/sandbox`."""

from pathlib import Path
from typing import Annotated, get_args

import numpy as np
import numpy.typing as npt
import typer
import yaml
from PIL import Image, ImageDraw

from pipeline.config.vocabulary import Vocabulary
from pipeline.images.overlay import overlaid, sheet
from stages.sandbox.world import painter
from stages.sandbox.world.drawn_distractors import DRAWN_DISTRACTORS
from stages.sandbox.world.drawn_targets import DRAWN_TARGETS
from stages.sandbox.world.layout import Domain, Placement, Setting
from stages.sandbox.world.looks import PHOTO
from stages.sandbox.world.world import render

Pixels = npt.NDArray[np.uint8]

_VOCABULARY = Path("configs/vocabularies/sandbox.yaml")
_DRAWING_PX, _SCENE_PX = 112, 160
_COLUMNS = 8


def drawings() -> list[Pixels]:
    """Pictures of all drawings in natural colours, with the names of the objects."""
    pictures = []
    for name, variants in (DRAWN_TARGETS | DRAWN_DISTRACTORS).items():
        for number in range(len(variants)):
            rng = np.random.default_rng(number)
            setting = Setting("paper", "paper", 0.0)
            middle = np.array([0.5, 0.55]) * _DRAWING_PX
            variant = (number + 0.5) / len(variants)
            placement = Placement(name, variant, middle, 0.4 * _DRAWING_PX, np.eye(2))
            parts = painter.outline(setting, [placement], _DRAWING_PX, _DRAWING_PX, rng)
            picture = painter.colour(parts, setting, [placement], PHOTO, rng)
            ImageDraw.Draw(picture).text((3, 1), name, fill="black")
            pictures.append(np.asarray(picture))
    return pictures


def scenes(domain: Domain, seed: int, count: int, palette: Pixels) -> list[Pixels]:
    """Pictures of scenes, and below each row the same scenes overlaid with their true classes."""
    drawn = [render(domain, seed, index, long_side_px=_SCENE_PX) for index in range(count)]
    pictures = []
    for start in range(0, count, _COLUMNS):
        row = drawn[start : start + _COLUMNS]
        pictures += [_on_a_square(scene.image) for scene in row]
        pictures += [_on_a_square(overlaid(scene.image, scene.classes, palette)) for scene in row]
    return pictures


def _on_a_square(image: Pixels) -> Pixels:
    canvas = np.full((_SCENE_PX, _SCENE_PX, 3), 255, np.uint8)
    top, left = ((_SCENE_PX - side) // 2 for side in image.shape[:2])
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return canvas


def _in_rows(pictures: list[Pixels]) -> Image.Image:
    return sheet([pictures[i : i + _COLUMNS] for i in range(0, len(pictures), _COLUMNS)])


def main(
    folder: Annotated[Path, typer.Argument(help="Output folder.")],
    seed: Annotated[int, typer.Option(help="Seed of the world.")] = 5,
    count: Annotated[int, typer.Option(help="Scenes for each domain, a multiple of 8.")] = 40,
) -> None:
    """Writes names.jpg, and web.jpg and id.jpg with the true classes below the scenes."""
    folder.mkdir(parents=True, exist_ok=True)
    with _VOCABULARY.open(encoding="utf-8") as file:
        palette = Vocabulary.model_validate(yaml.safe_load(file)).palette
    _in_rows(drawings()).save(folder / "names.jpg", quality=85)
    for domain in get_args(Domain):
        _in_rows(scenes(domain, seed, count, palette)).save(folder / f"{domain}.jpg", quality=80)


if __name__ == "__main__":
    typer.run(main)
