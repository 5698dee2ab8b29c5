"""Draws the README's picture from a finished run of the sandbox: `python -m tools.first_look`.

A web image and its stored label; a test image, predicted by two students, and its truth. Of both
kinds it is the first image that shows the most classes: nothing is chosen by how well it looks.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

import maskmill
from maskmill.run import Run
from pipeline.images.overlay import overlaid, sheet
from stages.labels.images import read_mask, read_pixels
from stages.predict.model import model_of_run

_SIDE_PX = 192
_OUT = Path("docs/sandbox/first-look.jpg")


def main() -> None:
    """Writes the picture."""
    run = maskmill.open()
    palette = run.config.vocabulary.palette
    web = _first_of_most(run.table("pseudo_labels").query("labeler == 'sam_clip'"), "class_ids")
    photo = read_pixels(_row(run, web["image_id"]))
    images = run.table("images")
    test = _first_of_most(images[images.role == "test"], "mask_class_ids")
    scene = read_pixels(_row(run, test["image_id"]))
    masks = [
        maskmill.load(model_of_run(Path(), f"sandbox/{variant}"), "cpu").predict(scene).mask
        for variant in ("labeled-only", "plus-web")
    ]
    masks.append(read_mask(_row(run, test["image_id"]), run.config.vocabulary))
    label = overlaid(photo, run.labels(web["image_id"], "sam_clip").mask, palette)
    cells = [photo, label, scene, *(overlaid(scene, mask, palette) for mask in masks)]
    sheet([[_small(cell) for cell in cells]]).save(_OUT, quality=90)
    print(f"wrote {_OUT}")


def _first_of_most(rows: Any, column: str) -> dict[str, Any]:
    """The first row whose list of classes is longest."""
    counts = rows[column].map(len)
    found: dict[str, Any] = rows[counts == counts.max()].iloc[0].to_dict()
    return found


def _row(run: Run, image_id: str) -> Any:
    images = run.table("images")
    return images[images.image_id == image_id].iloc[0].to_dict()


def _small(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.fromarray(picture).resize((_SIDE_PX, _SIDE_PX)))


if __name__ == "__main__":
    main()
