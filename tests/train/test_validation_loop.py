"""When val is scored, and which weights are the best."""

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from pipeline import stopping
from pipeline.config.vocabulary import Vocabulary
from stages.models.segmenters.description import ModelDescription
from stages.models.segmenters.networks.base import SegmentationNetwork
from stages.models.segmenters.protocol import WHOLE_IMAGE
from stages.train.config import VariantConfig
from stages.train.loop.validation import Validation
from tests.train.interruptions import BuildLoop, Draw
from tests.train.test_loop import log_of
from tests.train.test_previous import says
from tests.train.training_loops import CPU


@pytest.fixture
def validation(
    tmp_path: Path, vocabulary: Vocabulary, variant: Callable[..., VariantConfig]
) -> Validation:
    """On an image whose upper half is of class 0 and whose lower half is of class 1."""
    mask = np.repeat(np.array([0, 1], np.uint8), 4)[:, None].repeat(8, axis=1)
    row: Any = {"image_id": None, "mask_id": None, "label_scheme": None}
    for key, pixels in (("uri", np.zeros((8, 8, 3), np.uint8)), ("mask_uri", mask)):
        row[key] = str(tmp_path / f"{key}.png")
        Image.fromarray(pixels).save(row[key])
    description = ModelDescription.of_training(variant().model, vocabulary, WHOLE_IMAGE, {})
    path = tmp_path / "best.safetensors"
    return Validation([row], vocabulary, 3, path, description, CPU, WHOLE_IMAGE)


@pytest.mark.parametrize(
    ("every", "scored"),
    [(1, [1, 2, 3, 4]), (2, [2, 4]), (3, [3, 4]), (4, [4]), (5, [4])],
)
def test_val_is_scored_so_often_and_after_the_last_step(
    build_loop: BuildLoop, draw: Draw, validation: Validation, every: int, scored: list[int]
) -> None:
    case = build_loop(validation=replace(validation, every=every))
    case.loop.run(draw)
    assert [line["step"] for line in log_of(case) if "miou" in line] == scored


def test_of_equal_scores_the_first_is_the_best(
    validation: Validation, pixel_network: Callable[[], SegmentationNetwork]
) -> None:
    """Class 0 everywhere is half right, and so is class 1 everywhere."""
    first, equal = says(pixel_network(), 9.0, 0.0, 0.0), says(pixel_network(), 0.0, 9.0, 0.0)
    scores, improved = validation.run(first.eval(), 1)
    assert improved
    kept = load_file(validation.path)["classifier.bias"]
    again, improved = validation.run(equal.eval(), 2)
    assert again["miou"] == scores["miou"]
    assert not improved
    assert torch.equal(load_file(validation.path)["classifier.bias"], kept)
    assert torch.equal(validation.state_dict()["weights"]["classifier.bias"], kept)


def test_a_score_of_nothing_right_is_still_the_best_so_far(
    validation: Validation, pixel_network: Callable[[], SegmentationNetwork]
) -> None:
    scores, improved = validation.run(says(pixel_network(), 0.0, 0.0, 9.0).eval(), 1)
    assert (scores["miou"], improved) == (0, True)
    assert validation.path.exists()


def test_it_stops_after_an_image(
    validation: Validation, pixel_network: Callable[[], SegmentationNetwork]
) -> None:
    with stopping.on_signals(lambda _: None):
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(stopping.Stopped):
            validation.run(pixel_network().eval(), 1)
    assert not validation.path.exists()
