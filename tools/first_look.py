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
from maskmill.image_view import image_row, pixels_of, truth_of
from pipeline.images.overlay import overlaid, sheet
from stages.predict.model import model_of_run

_WIDTH_PX = 192
_OUT = Path("docs/sandbox/first-look.jpg")


def main() -> None:
    """Writes the picture."""
    run = maskmill.open()
    palette = run.config.vocabulary.palette
    web = _first_of_most(run.table("pseudo_labels").query("labeler == 'sam_clip'"), "class_ids")
    photo = pixels_of(image_row(run.config, web["image_id"]))
    images = run.table("images")
    test = _first_of_most(images[images.role == "test"], "mask_class_ids")
    row = image_row(run.config, test["image_id"])
    scene = pixels_of(row)
    masks = [
        maskmill.load(model_of_run(Path(), f"sandbox/{variant}"), "cpu").predict(scene).mask
        for variant in ("labeled-only", "plus-web")
    ]
    truth = truth_of(run.config, row)
    assert truth is not None, "test images have label files"
    masks.append(truth)
    label = overlaid(photo, run.labels(web["image_id"], "sam_clip").mask, palette)
    cells = [photo, label, scene, *(overlaid(scene, mask, palette) for mask in masks)]
    sheet([[_small(cell) for cell in cells]]).save(_OUT, quality=90)
    print(f"wrote {_OUT}")


def _first_of_most(rows: Any, column: str) -> dict[str, Any]:
    """The first row whose list of classes is longest."""
    counts = rows[column].map(len)
    found: dict[str, Any] = rows[counts == counts.max()].iloc[0].to_dict()
    return found


def _small(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    height, width = picture.shape[:2]
    size = _WIDTH_PX, round(_WIDTH_PX * height / width)
    return np.asarray(Image.fromarray(picture).resize(size))


if __name__ == "__main__":
    main()
