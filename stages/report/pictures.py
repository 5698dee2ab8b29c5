"""The report's pictures: stored labels over their images, predictions next to the truth."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pipeline import stopping
from pipeline.config.config import Config
from pipeline.errors import error_context
from pipeline.files import storage
from pipeline.images import images
from pipeline.images.overlay import encoded, overlaid, shaded, sheet
from pipeline.records.label_reader import LabelReader, StoredLabel
from pipeline.records.rows import ReportRow
from stages.evaluate.output import labels_shown
from stages.ingest.output import read_images
from stages.labels.images import read_mask, read_pixels
from stages.models.device import pick_device
from stages.models.segmenters.model_file import load_model_file
from stages.models.segmenters.protocol import protocol_of
from stages.pseudolabel.output import of_rows
from stages.report.output import labels_picture, predictions_picture
from stages.train.config import TrainConfig
from stages.train.output import TrainingKey, read_training

Bytes = npt.NDArray[np.uint8]

_SIDE_PX = 160
_LABELS_SHOWN = 20
_PREDICTIONS_SHOWN = 8
_IMAGES_A_ROW = 2


def draw_labels(config: Config, labeler: str) -> ReportRow:
    """Saves a picture of stored labels over random images (seed 0) of those that have labels."""
    others, labels = labels_shown(config, labeler)
    rng = np.random.default_rng(0)
    chosen = labels.take(rng.permutation(labels.num_rows)[:_LABELS_SHOWN])
    images_of = {row["row"]: row for row in of_rows(others, chosen).to_pylist()}
    cells, reader = [], LabelReader()
    for label in chosen.to_pylist():
        stopping.check()
        pixels = images.fit(read_pixels(images_of[label["row"]]), _SIDE_PX)
        ((mask, confidence),) = reader.read([StoredLabel.of(config.run.workspace, label)])
        over = overlaid(pixels, mask, config.vocabulary.palette)
        cells.append([pixels, over, shaded(pixels, confidence)])
    path = labels_picture(config, labeler)
    storage.write_bytes(path, encoded(sheet(list(_in_rows(cells)))), durable=False)
    return {
        "file": path.name,
        "kind": "labels",
        "title": f"Stored labels of {labeler}: {len(cells)} random images",
        "columns": "image, label over it, confidence (white = certain); two images in a row",
    }


def draw_predictions(config: Config, split: str, device: str) -> ReportRow:
    """Saves a picture of images of a split, their truth and the prediction of each variant.

    A variant is shown by its first seed.
    """
    palette, section = config.vocabulary.palette, config.section(TrainConfig)
    assert section is not None
    on = pick_device(device)
    predictors = {}
    for name, variant in section.variants.items():
        if training := read_training(config, TrainingKey(name, variant.seeds[0])):
            predictors[name] = load_model_file(
                training.files.weights,
                on,
                vocabulary=config.vocabulary,
                protocol=protocol_of(config, variant.published_protocol),
            )
    rows = []
    for image in read_images(config.manifests, [split]).slice(0, _PREDICTIONS_SHOWN).to_pylist():
        stopping.check()
        pixels = read_pixels(image)
        masks = [read_mask(image, config.vocabulary)]
        with error_context(f"image {image['image_id']}"):
            masks += [predictor.predict(pixels) for predictor in predictors.values()]
        small = images.fit(pixels, _SIDE_PX)
        rows.append([small, *(overlaid(small, mask, palette) for mask in masks)])
    path = predictions_picture(config, split)
    storage.write_bytes(path, encoded(sheet(rows)), durable=False)
    return {
        "file": path.name,
        "kind": "predictions",
        "title": f"Predictions on {split} images",
        "columns": f"image, truth, {', '.join(predictors)}",
    }


def _in_rows(cells: list[list[Bytes]]) -> Iterator[list[Bytes]]:
    for start in range(0, len(cells), _IMAGES_A_ROW):
        yield [picture for cell in cells[start : start + _IMAGES_A_ROW] for picture in cell]
