from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.config import components
from pipeline.config.vocabulary import ClassEntry, Vocabulary
from stages.models.segmenters.builders.base import ModelBuilder

MODELS = "stages.models.segmenters.builders"
CLASSES = Vocabulary(
    name="test",
    classes=tuple(
        ClassEntry(name=name, color="#000000") for name in ("sky", "road", "car", "dog", "cat")
    ),
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


@pytest.fixture
def tiny_run(tiny: dict[str, Any], clip_folder: Path) -> dict[str, Any]:
    """Plain values of a config that trains each model for two steps."""
    models = {name: {"name": name, **keys} for name, keys in TINY.items()}
    clip = f"local-dir:{clip_folder}"
    models["semivl"] = {"name": "semivl", "model": clip, "image_px": 32, "text": "concept-avg"}
    lengths = {"steps": 2, "batch_size": 2, "checkpoint_every": 2, "log_every": 1, "crop_px": 32}
    rates = {"optimizer": "adamw", "encoder_multiplier": 0.1, "decay_encoder_norms": False}
    train = {**lengths, **rates, "perturbation": "unimatch", "label_sources": ["student"]}
    variants = {name: {"model": keys} for name, keys in models.items()}
    return {**tiny, "train": {**train, "device": "cpu", "variants": variants}, "evaluate": {}}


@pytest.fixture
def tiny_keys(clip_folder: Path) -> Callable[[str], dict[str, Any]]:
    """Keys of a small network by its name."""
    semivl = {"model": f"local-dir:{clip_folder}", "image_px": 32}
    return lambda name: dict(semivl if name == "semivl" else TINY[name])


@pytest.fixture(params=components.names(MODELS))
def tiny_model(
    request: pytest.FixtureRequest, tiny_keys: Callable[[str], dict[str, Any]]
) -> ModelBuilder:
    """Each model, small."""
    name: str = request.param
    return named(name, **tiny_keys(name))
