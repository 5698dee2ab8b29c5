"""A model file of a network with random weights, a folder of images, and the command."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pipeline.config.components import Choice
from pipeline.config.vocabulary import Vocabulary
from pipeline.console import Console
from pipeline.records.rows import PredictionRow
from stages.models.segmenters.builders.base import ModelBuilder
from stages.models.segmenters.builders.small_unet import SmallUNetModel
from stages.models.segmenters.description import ModelDescription
from stages.models.segmenters.model_file import save_model_file
from stages.models.segmenters.protocol import Protocol, SlidingWindow
from stages.predict.predict import Request, predict
from tests.conftest import VOCABULARY

SLIDING = Protocol(sliding_window=SlidingWindow(side_px=16, stride_px=12))


def write_model(path: Path, seed: int = 0) -> Path:
    """Writes a model file whose weights depend on the seed."""
    config = SmallUNetModel.Config.model_validate({"encoder_weights": None})
    vocabulary = Vocabulary.model_validate(VOCABULARY)
    choice: Choice[ModelBuilder] = Choice("small_unet", SmallUNetModel, config)
    torch.manual_seed(seed)
    weights = choice.create().build(vocabulary).state_dict()
    save_model_file(path, weights, ModelDescription.of_training(choice, vocabulary, SLIDING, {}))
    return path


def picture(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A drawn image of a width and height."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model.safetensors")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five images, one of them in a subfolder, and a damaged one."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for seed, name in enumerate(("a.png", "b.png", "b.jpg", "sub/a.png", "wide.bmp")):
        picture(seed, (61, 23) if name == "wide.bmp" else (40, 30)).save(folder / name)
    (folder / "damaged.png").write_bytes((folder / "a.png").read_bytes()[:200])
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def run(model: Path, out: Path) -> Callable[..., dict[str, PredictionRow]]:
    """Predicts, and returns the rows by name: ``run(photos, kinds=["masks"])``."""

    def run(
        *what: Path | str, kinds: tuple[str, ...] = ("masks",), every: int = 1
    ) -> dict[str, PredictionRow]:
        request = Request([str(each) for each in what], model, out, kinds, "cpu", every)
        predict(request, Console())
        return rows(out)

    return run


def rows(out: Path) -> dict[str, PredictionRow]:
    """The rows of a folder of predictions by name."""
    found: list[PredictionRow] = pq.read_table(out / "predictions.parquet").to_pylist()
    return {row["name"]: row for row in found}
