"""Scores of trainings and of stored labels on images with label files, as manifest rows."""

from __future__ import annotations

import torch

from pipeline import stopping
from pipeline.config.config import Config
from pipeline.errors import DataError, error_context
from pipeline.records.rows import ConfusionRow, MetricRow
from stages.evaluate.score_key import BEST, ScoreKey
from stages.evaluate.scores import Scores
from stages.ingest.output import read_images
from stages.labels.images import read_mask, read_pixels
from stages.models.segmenters.model_file import load_model_file
from stages.models.segmenters.protocol import Protocol
from stages.pseudolabel.output import labels_with_truth
from stages.train.output import TrainingKey, check_weights, read_training, training_part

Rows = tuple[list[MetricRow], list[ConfusionRow]]


def score_training(config: Config, key: ScoreKey, protocol: Protocol, device: torch.device) -> Rows:
    """Scores the last weights of a training, and its best ones if val was scored.

    Args:
        config: The run.
        key: The training and the split.
        protocol: How images are predicted.
        device: Where the network runs.

    Returns:
        Rows of `metrics` of both, and of `confusion` of the last ones.

    Raises:
        DataError: The training is missing, or an image or label file can no longer be read.
        WeightsError: A file of weights is missing or damaged.
        StorageError: Weights are not those that the training wrote.
    """
    assert key.seed is not None
    trained = TrainingKey(key.name, key.seed)
    training = read_training(config, trained)
    if training is None:
        where = str(training_part(config, trained))
        raise DataError("no finished training", where=where, fix="run `maskmill run train`")
    weights = {"": (training.files.weights, training.steps)}
    if training.best_step is not None:
        weights[BEST] = (training.files.best, training.best_step)
    images = read_images(config.manifests, [key.split]).to_pylist()
    metrics: list[MetricRow] = []
    confusion: list[ConfusionRow] = []
    for prefix, (file, step) in weights.items():
        check_weights(config, trained, file)
        predictor = load_model_file(file, device, vocabulary=config.vocabulary, protocol=protocol)
        scores = Scores.empty(config.vocabulary.class_names)
        for image in images:
            stopping.check()
            with error_context(f"{file}: image {image['image_id']}"):
                predicted = predictor.predict(read_pixels(image))
            scores.add(read_mask(image, config.vocabulary), predicted)
        metrics += scores.metric_rows(config.run.run, key, step, prefix)
        if not prefix:
            confusion += scores.confusion_rows(config.run.run, key, step)
    return metrics, confusion


def score_labels(config: Config, key: ScoreKey) -> Rows:
    """Scores a labeler's stored labels of the images of a role.

    Raises:
        DataError: A label file can no longer be read.
        StorageError: The labels are damaged.
    """
    images = read_images(config.manifests, [key.split])
    scores = Scores.empty(config.vocabulary.class_names)
    for label in labels_with_truth(config, key.name, images):
        scores.add(label.truth, label.mask)
    run = config.run.run
    return scores.metric_rows(run, key, None), scores.confusion_rows(run, key, None)
