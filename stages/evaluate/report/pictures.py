"""The report's pictures: stored labels over their images, predictions beside the truth."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.config.config import Config
from pipeline.files import storage
from pipeline.images import images
from pipeline.images.overlay import encoded, overlaid, shaded, sheet
from pipeline.records.label_reader import LabelReader
from stages.evaluate.inference import read_pixels
from stages.evaluate.report_contents import shown_labels
from stages.ingest.output import read_images
from stages.labels.images import read_truth
from stages.models.segmenters.predictor import Predictor
from stages.pseudolabel.output import of_rows

Bytes = npt.NDArray[np.uint8]

_SIDE_PX = 160
_LABELS_SHOWN = 20
_PREDICTIONS_SHOWN = 8
_BESIDE = 2


@dataclass(frozen=True)
class Picture:
    """A saved sheet of images.

    Attributes:
        title: What it shows.
        columns: What each column is.
        file: Its name in the report's folder.
    """

    title: str
    columns: str
    file: str


def draw_labels(config: Config, path: Path, labeler: str) -> Picture:
    """Saves a sheet of stored labels over images drawn at random (seed 0) from those labeled."""
    others, labels = shown_labels(config, labeler)
    rng = np.random.default_rng(0)
    chosen = labels.take(rng.permutation(labels.num_rows)[:_LABELS_SHOWN])
    images_of = {row["row"]: row for row in of_rows(others, chosen).to_pylist()}
    cells = []
    for label in chosen.to_pylist():
        pixels = images.fit(read_pixels(images_of[label["row"]]), _SIDE_PX)
        reader = LabelReader(config.run.workspace / label["store"])
        size = (label["height"], label["width"])
        ((mask, confidence),) = reader.read([label["row"]], [size])
        over = overlaid(pixels, mask, config.vocabulary.palette)
        cells.append([pixels, over, shaded(pixels, confidence)])
    storage.write_bytes(path, encoded(sheet(list(_side_by_side(cells)))), durable=False)
    title = f"Stored labels of {labeler}: {len(cells)} random images"
    return Picture(
        title, "image, label over it, confidence (white = certain); twice a row", path.name
    )


def draw_predictions(
    config: Config, path: Path, split: str, predictors: Mapping[str, Predictor]
) -> Picture:
    """Saves a sheet of images of a split, their truth and what each variant makes of them."""
    palette = config.vocabulary.palette
    rows = []
    chosen = read_images(config.manifests, [split]).slice(0, _PREDICTIONS_SHOWN)
    for image in chosen.to_pylist():
        pixels = read_pixels(image)
        masks = [read_truth(image, config.vocabulary)]
        masks += [predictor.predict(pixels) for predictor in predictors.values()]
        small = images.fit(pixels, _SIDE_PX)
        rows.append([small, *(overlaid(small, mask, palette) for mask in masks)])
    storage.write_bytes(path, encoded(sheet(rows)), durable=False)
    columns = f"image, truth, {', '.join(predictors)}"
    return Picture(f"Predictions on {split} images", columns, path.name)


def _side_by_side(cells: list[list[Bytes]]) -> Iterator[list[Bytes]]:
    for start in range(0, len(cells), _BESIDE):
        yield [picture for cell in cells[start : start + _BESIDE] for picture in cell]
