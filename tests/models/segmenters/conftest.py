import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.config import components
from pipeline.config.class_entry import ClassEntry
from pipeline.config.components import Choice
from pipeline.config.vocabulary import Vocabulary
from stages.models.segmenters.builders.base import ModelBuilder
from stages.models.segmenters.description import HEADER_KEY, ModelDescription
from stages.models.segmenters.model_file import save_model_file
from stages.models.segmenters.protocol import WHOLE_IMAGE, Protocol

MODELS = "stages.models.segmenters.builders"
CLASSES = Vocabulary(
    name="test",
    classes=tuple(
        ClassEntry(name=name, color="#000000") for name in ("sky", "road", "car", "dog", "cat")
    ),
)
FACTS: Any = {"train.steps": 2, "inputs.labeled": "0123"}
WINDOWS = Protocol.model_validate(
    {"sliding_window": {"side_px": 32, "stride_px": 16}, "flip": True, "scales": [1.0, 1.5]}
)
TINY: dict[str, dict[str, object]] = {
    "deeplabv3plus": {"encoder": "tu-test_resnet", "encoder_weights": None},
    "dpt": {"encoder": "test_vit", "encoder_weights": None},
    "small_unet": {"encoder_weights": None},
    "unet": {"encoder": "tu-test_resnet", "encoder_weights": None},
}
"""Keys of models that make small networks of them, without a download."""


def named(name: str, **keys: object) -> ModelBuilder:
    found = components.find(MODELS, name, ModelBuilder)  # type: ignore[type-abstract]
    return found(found.Config.model_validate(keys))


@pytest.fixture
def model() -> Callable[..., ModelBuilder]:
    """Models by name and keys: ``model("dpt", encoder="test_vit")``."""
    return named


@pytest.fixture
def classes() -> Vocabulary:
    """Five classes."""
    return CLASSES


@pytest.fixture
def images() -> Callable[..., Tensor]:
    """Draws normalized images; the same arguments give the same ones."""

    def draw(count: int = 2, height: int = 33, width: int = 50) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(count, 3, height, width, generator=generator)

    return draw


def small_models(clip_folder: Path) -> dict[str, dict[str, object]]:
    """Keys of each model by name, small."""
    clip = f"local-dir:{clip_folder}"
    return {**TINY, "semivl": {"model": clip, "image_px": 32}}


@pytest.fixture
def tiny_models() -> Callable[[Path], dict[str, dict[str, object]]]:
    """Keys of each model, small, with the CLIP of a folder: ``tiny_models(folder)``."""
    return small_models


@pytest.fixture
def tiny_run(tiny: dict[str, Any], clip_folder: Path) -> dict[str, Any]:
    """Plain values of a config that trains each model for two steps."""
    models = {name: {"name": name, **keys} for name, keys in small_models(clip_folder).items()}
    models["semivl"]["text"] = "concept-avg"
    lengths = {"steps": 2, "batch_size": 2, "checkpoint_every": 2, "log_every": 1, "crop_px": 32}
    rates = {"optimizer": "adamw", "encoder_multiplier": 0.1, "decay_encoder_norms": False}
    train = {**lengths, **rates, "perturbation": "unimatch", "label_sources": ["student"]}
    variants = {name: {"model": keys} for name, keys in models.items()}
    return {**tiny, "train": {**train, "device": "cpu", "variants": variants}, "evaluate": {}}


@pytest.fixture(params=components.names(MODELS))
def tiny_model(request: pytest.FixtureRequest, clip_folder: Path) -> ModelBuilder:
    """Each model, small."""
    return named(request.param, **small_models(clip_folder)[request.param])


def describe(
    builder: ModelBuilder, classes: Vocabulary, protocol: Protocol = WHOLE_IMAGE
) -> ModelDescription:
    choice = Choice(builder.file_name(), type(builder), builder.config)
    return ModelDescription.of_training(choice, classes, protocol, FACTS)


@pytest.fixture
def described() -> Callable[..., ModelDescription]:
    """Descriptions of trainings: ``described(builder, classes, protocol)``."""
    return describe


@pytest.fixture
def builder(model: Callable[..., ModelBuilder]) -> ModelBuilder:
    return model("small_unet", encoder_weights=None)


@pytest.fixture
def path(builder: ModelBuilder, classes: Vocabulary, tmp_path: Path) -> Path:
    """The model file of a network with random weights."""
    torch.manual_seed(0)
    file = tmp_path / "trained" / "model.safetensors"
    save_model_file(file, builder.build(classes).state_dict(), describe(builder, classes, WINDOWS))
    return file


@pytest.fixture
def windows() -> Protocol:
    """The protocol in the file at `path`, with windows, flips and scales."""
    return WINDOWS


@pytest.fixture
def description_in() -> Callable[[Path], dict[str, Any]]:
    """Reads the description in a file as plain values."""

    def read(path: Path) -> dict[str, Any]:
        with safe_open(path, "pt") as file:
            values: dict[str, Any] = json.loads(file.metadata()[HEADER_KEY])
        return values

    return read


@pytest.fixture
def rewrite() -> Callable[[Path, dict[str, str] | None], None]:
    """Replaces the metadata of a file and keeps its tensors."""

    def save(path: Path, metadata: dict[str, str] | None) -> None:
        save_file(load_file(path), path, metadata=metadata)

    return save
