"""Networks and labelers, scored on images whose truth is known."""

from __future__ import annotations

import pyarrow as pa

from pipeline.config.config import Config
from stages.evaluate.scores import Scores
from stages.ingest.output import read_images
from stages.labels.images import read_mask, read_pixels
from stages.models.segmenters.predictor import Predictor
from stages.pseudolabel.labels_with_truth import judged_labels


def score_network(config: Config, split: str, predictor: Predictor) -> Scores | None:
    """Scores on the images of a split, at their own size; None where there are none.

    Raises:
        DataError: An image or its label file can no longer be read.
    """
    images = read_images(config.manifests, [split]).to_pylist()
    scores = Scores.empty(config.vocabulary.class_names)
    for image in images:
        predicted = predictor.predict(read_pixels(image))
        scores.add(read_mask(image, config.vocabulary), predicted)
    return scores if images else None


def score_labels(config: Config, labeler: str, images: pa.Table) -> dict[str, Scores]:
    """Scores of stored labels, by the role of the images.

    Raises:
        DataError: A label file can no longer be read.
        StorageError: The labels are damaged.
    """
    found: dict[str, Scores] = {}
    for label in judged_labels(config, labeler, images):
        empty = Scores.empty(config.vocabulary.class_names)
        found.setdefault(label.image["role"], empty).add(label.truth, label.mask)
    return found
